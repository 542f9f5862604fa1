"""What the writes that share a commit leave to it, and what one finds that the next may use.

Each would else ask for the chain's head, write one event and one notice, and add up the month, for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
        self._events: list[chain.Event] = []
        self._notices: list[Mapping[str, Any]] = []
        self._spending: dict[tuple[str, Period], Spending] = {}

    def spending(self, team: str, month: Period, now: datetime) -> Spending:
        """What the month has cost and the open jobs may still cost, as the earlier writes left it."""
        if (team, month) not in self._spending:
            self._spending[team, month] = look(self.connection, team, month, now, None)
        return self._spending[team, month]

    def leave(
        self,
        events: Iterable[chain.Event],
        notices: Iterable[Mapping[str, Any]],
        jobs: Iterable[tuple[Job | None, Job]],
    ) -> None:
        """The last act of a write: what the commit writes at its end, and the jobs that moved, from what to what."""
        self._events.extend(events)
        self._notices.extend(notices)
        for before, after in jobs:
            if before is not None or after.phase is not JobPhase.QUEUED:
                self._spending.clear()  # asked for anew, should anybody want it
            for (team, month), one in self._spending.items():
                if team == after.team:
                    self._spending[team, month] = one.committing(after.channel, after.ceiling)

    def end(self) -> None:
        """Write what was left."""
        chain.append(self.connection, self._events)
        if self._notices:
            self.connection.execute(NOTICE, self._notices)
