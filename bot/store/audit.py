"""Checks the event chain and that every row still says what its last event said. Reads only.

Answers `Finding`s: the first is where the chain breaks. `python -m bot audit verify` prints them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from bot.core.canonical import canonical_json, digest_of
from bot.store import chain, records, schema
from bot.store.reading import JOBS, PROPOSALS, read_jobs, read_proposals
from bot.store.store import Store

START = "0" * 64
_JOB, _PROPOSAL, _REVISION = schema.job.c, schema.proposal.c, schema.revision.c
COPIES = (
    sa.select(_JOB.name, _JOB.team, _JOB.channel, _JOB.ceiling, _JOB.checkpoint_of)
    .add_columns(_REVISION.estimate, _REVISION.offer)
    .add_columns(_PROPOSAL.team.label("its_team"), _PROPOSAL.channel.label("its_channel"))
    .join_from(schema.job, schema.proposal, _PROPOSAL.id == _JOB.proposal_id)
    .join(schema.revision, (_REVISION.proposal_id == _JOB.proposal_id) & (_REVISION.revision == _JOB.revision))
)
Rows = Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as it was written. `where` names the row."""

    where: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was checked, and what was found wrong; empty findings mean that the chain is whole."""

    events: int
    entities: int
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        return not self.findings


async def verify(store: Store) -> Report:
    """Walk the whole chain and compare every proposal, revision, vote, job and interval with it."""
    found = await store.database.read(_recorded)
    events = found.events
    findings = list(_walk(events, found.head))
    if findings:  # what events say is worth comparing with only while the events themselves are whole
        return Report(events=len(events), entities=len({row.entity for row in events}), findings=tuple(findings))
    last = {row.entity: row for row in events}
    if isinstance(found.standing, str):
        what = f"its rows cannot be read any more ({found.standing})"
        findings.append(Finding(where="a proposal or job", what=what))
    else:
        findings += _compare(last, found.standing)
    findings += _revisions(events, found.revisions, found.votes)
    findings += _copies(found.copies)
    return Report(events=len(events), entities=len(last), findings=tuple(findings))


@dataclass(frozen=True, kw_only=True)
class _Recorded:
    """One moment of the database: a bot that goes on writing meanwhile must not look like a forger."""

    events: Rows
    head: Any
    revisions: Rows
    votes: Rows
    copies: Rows  # what each job copies, beside what it copies
    standing: dict[str, str] | str  # each entity as its rows say, as canonical text; or why they cannot be read


def _recorded(connection: sa.Connection) -> _Recorded:
    events = connection.execute(sa.select(schema.event).order_by(schema.event.c.seq)).all()
    head = connection.execute(sa.select(schema.chain_head)).one_or_none()
    revisions = connection.execute(sa.select(schema.revision)).all()
    votes = connection.execute(sa.select(schema.vote)).all()
    copies = connection.execute(COPIES).all()
    standing: dict[str, str] | str
    try:
        standing = _standing(connection)
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        standing = str(error)
    return _Recorded(events=events, head=head, revisions=revisions, votes=votes, copies=copies, standing=standing)


def _standing(connection: sa.Connection) -> dict[str, str]:
    standing: dict[str, str] = {}
    for proposal in read_proposals(connection, PROPOSALS):
        standing[f"proposal:{proposal.id}"] = canonical_json(records.proposal_snapshot(proposal))
    for found in read_jobs(connection, JOBS):
        standing[f"job:{found.job.name}"] = canonical_json(records.job_snapshot(found.job))
    return standing


def _walk(events: Rows, head: Any) -> Iterator[Finding]:
    previous, versions = START, dict[str, int]()
    for index, row in enumerate(events, start=1):
        where = f"event {row.seq} ({row.entity}, version {row.version}, {row.kind})"
        if row.seq != index:
            yield Finding(where=where, what=f"event {index} is missing before it: the chain breaks here")
            return
        if chain.link(previous, row.body) != row.hash:
            yield Finding(where=where, what="its hash does not follow from the row before it: the chain breaks here")
            return
        expected = {name: getattr(row, name) for name in ("seq", "entity", "version", "kind", "actor")} | {
            "at": records.instant(row.at)
        }
        if {name: json.loads(row.body).get(name) for name in expected} != expected:
            yield Finding(where=where, what="its columns differ from its hashed body: they were altered")
        if row.version != versions.get(row.entity, 0) + 1:
            yield Finding(where=where, what=f"it should be version {versions.get(row.entity, 0) + 1}")
        previous, versions[row.entity] = row.hash, row.version
    if head is None:
        yield Finding(where="chain_head", what="the chain's head is gone")
    elif head.hash != previous or head.seq != len(events):
        yield Finding(
            where=f"after event {len(events)}", what=f"the chain's end is missing: {head.seq} events were written"
        )


def _compare(last: dict[str, Any], standing: dict[str, str]) -> Iterator[Finding]:
    for entity, row in last.items():
        said = json.loads(row.body)["after"]
        if entity not in standing:
            yield Finding(where=entity, what="its row is gone")
        elif canonical_json(said) != standing[entity]:
            now = json.loads(standing[entity])
            names = sorted(name for name in said if said[name] != now.get(name))
            yield Finding(where=entity, what=f"its rows differ from event {row.seq} in: {', '.join(names)}")
    for entity in standing.keys() - last.keys():
        yield Finding(where=entity, what="it has a row, but no event ever made it")


def _revisions(events: Rows, revisions: Rows, votes: Rows) -> Iterator[Finding]:
    """Every revision, earlier ones too, against the last event that told of it: its terms, its author, its votes."""
    said: dict[tuple[str, int], dict[str, Any]] = {}
    for row in events:
        after = json.loads(row.body)["after"]
        if "votes" in after:
            said[(after["id"], after["revision"])] = after
    cast: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for vote in sorted(votes, key=lambda one: str(one.voter)):
        cast.setdefault((vote.proposal_id, vote.revision), []).append(
            {
                "voter": vote.voter,
                "verdict": vote.verdict,
                "revision": vote.revision,
                "digest": vote.digest,
                "at": records.instant(vote.at),
                "reason": vote.reason,
            }
        )
    rows = {(row.proposal_id, row.revision): row for row in revisions}
    for key in said.keys() | rows.keys() | cast.keys():
        where = f"revision {key[1]} of proposal {key[0]}"
        if key not in said or key not in rows:
            yield Finding(where=where, what="its row is gone" if key in said else "no event ever told of it")
            continue
        yield from _revision(where, said[key], rows[key], cast.get(key, []))


def _revision(where: str, said: dict[str, Any], row: Any, votes: list[dict[str, Any]]) -> Iterator[Finding]:
    try:
        offer, estimate = json.loads(row.offer), json.loads(row.estimate)
        digest, recipe = digest_of(offer), offer["spec"]["recipe"]
    except (ValueError, KeyError, TypeError):
        yield Finding(where=where, what="its row cannot be read any more")
        return
    if not digest == row.digest == said["digest"]:
        yield Finding(where=where, what="what would run differs from the digest in its events")
    elif row.recipe != recipe:
        yield Finding(where=where, what="its recipe differs from what would run")
    if row.author != said["author"]:
        yield Finding(where=where, what="its author differs from its events")
    if estimate != said["estimate"]:
        yield Finding(where=where, what="its estimate differs from its events")
    if votes != said["votes"]:
        yield Finding(where=where, what="its votes differ from its events")


def _copies(rows: Rows) -> Iterator[Finding]:
    """Budgets and queues are read from what jobs copy of their proposal and its approved revision."""
    for row in rows:
        if (row.team, row.channel) != (row.its_team, row.its_channel):
            yield Finding(where=f"job:{row.name}", what="its team or channel differs from its proposal's")
        with suppress(ValueError, KeyError, TypeError):  # an estimate that cannot be read is a finding of its own
            if row.ceiling != json.loads(row.estimate)["ceiling"]["dollars"]:
                yield Finding(where=f"job:{row.name}", what="its ceiling differs from what was approved")
        with suppress(ValueError, KeyError, TypeError):  # and so is an offer
            if row.checkpoint_of != json.loads(row.offer)["spec"].get("resume_from", row.name):
                yield Finding(
                    where=f"job:{row.name}", what="the checkpoint it goes on from differs from what was approved"
                )
