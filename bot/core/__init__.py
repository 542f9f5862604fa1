"""The pure core: proposals, jobs, policy. No I/O, no clock, no randomness of its own."""
