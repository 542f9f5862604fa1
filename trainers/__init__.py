"""Standalone training programs, started as `python -m trainers.NAME`. They import neither `bot` nor `tools`."""
