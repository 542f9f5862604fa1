"""Slack as a surface: the same use cases, desk and reconciler, with cards, buttons, forms, a home page and digests."""
