"""The append-only, hash-chained event log: every change of a proposal or job, with the entity as it then stood.

An event's hash covers the hash before it, so a row that is altered, removed or slipped in later breaks the chain
there; `bot.store.audit` finds the place. The head row makes a cut-off tail show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bot.core.canonical import canonical_json
from bot.store.records import instant
from bot.store.schema import chain_head, event

HEAD = sa.select(chain_head.c.seq, chain_head.c.hash).where(chain_head.c.id == 1)
APPEND = sa.insert(event)
SET_HEAD = sa.update(chain_head).where(chain_head.c.id == 1)


def link(previous: str, body: str) -> str:
    """The hash of an event: SHA-256 over the previous hash and this body."""
    return hashlib.sha256(f"{previous}\n{body}".encode()).hexdigest()


def body_of(*, seq: int, entity: str, version: int, kind: str, actor: str, at: datetime, after: dict[str, Any]) -> str:
    """An event's canonical text."""
    return canonical_json(
        {
            "seq": seq,
            "entity": entity,
            "version": version,
            "kind": kind,
            "actor": actor,
            "at": instant(at),
            "after": after,
        }
    )


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened to an entity, which now has that version and stands as in `after`."""

    entity: str
    version: int
    kind: str
    actor: str
    at: datetime
    after: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Head:
    """The last event's place and hash."""

    seq: int
    hash: str


def head_of(connection: sa.Connection) -> Head:
    """Where the chain ends."""
    return Head(**connection.execute(HEAD).one()._mapping)


def linked(head: Head, events: Sequence[Event]) -> tuple[list[dict[str, Any]], Head]:
    """The rows of the next events, in this order, and where the chain then ends. No I/O."""
    rows = []
    for one in events:
        own = {item.name: getattr(one, item.name) for item in fields(Event) if item.name != "after"}
        body = body_of(seq=head.seq + 1, after=one.after, **own)
        head = Head(seq=head.seq + 1, hash=link(head.hash, body))
        rows.append(own | {"seq": head.seq, "body": body, "hash": head.hash})
    return rows, head


def append(connection: sa.Connection, rows: Sequence[dict[str, Any]], head: Head) -> None:
    """Write what was linked. Part of the transaction that changes the events' entities."""
    connection.execute(APPEND, rows)
    connection.execute(SET_HEAD, {"seq": head.seq, "hash": head.hash})
