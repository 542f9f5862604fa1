"""What Signalbox trains, where it runs, what it logs and what it costs. Imports nothing of `bot`."""
