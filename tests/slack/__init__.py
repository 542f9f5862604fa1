"""Slack's payloads: the values they are made from, golden files, the linter, hostile words."""
