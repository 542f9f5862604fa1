"""Our Slack half against a Slack that nobody here wrote: npm `emulate`, fetched on the first run."""
