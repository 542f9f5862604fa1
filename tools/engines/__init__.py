"""Where a training runs: one protocol (`base`), one module an engine. Imports nothing itself."""
