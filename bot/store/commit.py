"""What the writes that share a commit leave to it, and what one finds that the next may use.

Each would else ask for the chain's head, write one event and one notice, and add up the month, for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bot.core.job import Job, JobPhase
from bot.core.periods import Period
from bot.store import chain, schema
from bot.store.spending import Spending, look

NOTICE = sa.insert(schema.outbox)


class Commit:
    """One transaction of the writer. What a write leaves counts only once it has: one that fails leaves nothing."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self._head: chain.Head | None = None
        self._events: list[dict[str, Any]] = []
        self._notices: list[Mapping[str, Any]] = []
        self._spending: dict[tuple[str, Period], Spending] = {}

    def spending(self, team: str, month: Period, now: datetime) -> Spending:
        """What the month has cost and the open jobs may still cost, as the earlier writes left it."""
        if (team, month) not in self._spending:
            self._spending[team, month] = look(self.connection, team, month, now, None)
        return self._spending[team, month]

    def leave(
        self,
        events: Sequence[chain.Event],
        notices: Iterable[Mapping[str, Any]],
        jobs: Iterable[tuple[Job | None, Job]],
    ) -> None:
        """The last act of a write: what the commit writes at its end, and the jobs that moved, from what to what."""
        if events:  # what cannot be put into words fails here, for its own write alone
            rows, self._head = chain.linked(self._head or chain.head_of(self.connection), events)
            self._events.extend(rows)
        self._notices.extend(notices)
        for before, after in jobs:
            if before is None and after.phase is JobPhase.QUEUED:
                for (team, month), one in self._spending.items():
                    if team == after.team:
                        self._spending[team, month] = one.committing(after.channel, after.ceiling)
            else:
                self._spending.clear()  # asked for anew, should anybody want it

    def end(self) -> None:
        """Write what was left."""
        if self._head is not None:
            chain.append(self.connection, self._events, self._head)
        if self._notices:
            self.connection.execute(NOTICE, self._notices)
