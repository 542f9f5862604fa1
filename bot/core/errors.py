"""The one family of errors that cross rooms. A message is a sentence for a person, with the next step."""

from __future__ import annotations


class SignalboxError(Exception):
    """The base of all of ours."""


class Refused(SignalboxError):
    """Not allowed, or no longer possible; trying again as it is will not help. The message says why."""


class NotFound(Refused):
    """There is nothing by that name where the person asked."""


class Conflict(SignalboxError):
    """Someone else changed the row between our reading and our writing. Load again and decide again."""


class Unavailable(SignalboxError):
    """Something outside does not answer now (database, MLflow, engine). Retried with back-off."""


class Misconfigured(SignalboxError):
    """A setting or file is missing or wrong. The message names it and what to write there."""
