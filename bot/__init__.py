"""Signalbox's bot: people, proposals, jobs and the surfaces that show them. Imports `tools`, never the reverse."""
