"""The terminal chat: a surface like Slack's, over the same use cases, with people played by `/as NAME`."""
