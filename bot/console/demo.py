"""The demo: the main job played through the same code, by two people in one terminal.

Asks for a real training, shows that the requester cannot approve it, has another person approve it, waits for the
result, and shows digest and spend. Its exit status is 0 only if the training really succeeded.
"""

from __future__ import annotations

import sys

from bot.console.session import FAILED, OK, Session, interactive, open_session
from bot.core.job import Job, JobPhase
from bot.core.proposal import ProposalState
from bot.settings import Settings

REQUESTER, APPROVER = "lead", "approver"  # both are approvers by the built-in policy: even so, not of one's own
REQUEST = "please train digits for 6 epochs with a learning rate of 2e-3"


async def run(settings: Settings) -> int:
    """Play it, then leave a person in the chat; answers the exit status."""
    person = sys.stdin.isatty() and sys.stdout.isatty()
    async with open_session(settings, lines=not person) as session:
        print("Signalbox's main job, on this machine: words → proposal → approval → training → metrics and cost.\n")
        job = await _play(session)
        good = job is not None and job.phase is JobPhase.SUCCEEDED
        if not person:
            return OK if good else FAILED
        status = await interactive(session)
        return status if good else FAILED


async def _play(session: Session) -> Job | None:
    """The loop; answers the job that it ran."""
    await _type(session, f"/as {REQUESTER}")
    before = {one.id for one in await session.app.store.every_proposal()}
    await _type(session, REQUEST)
    newest = [one for one in await session.app.store.proposals("local", "terminal", limit=1) if one.id not in before]
    if not newest or newest[0].state is not ProposalState.PENDING:
        session.notifier.say("The demo's proposal was not made; see above.")
        return None
    number, proposal_id = newest[0].number, newest[0].id
    await _type(session, f"/approve {number}")
    unmoved = await session.app.store.proposal("local", "terminal", number)
    if unmoved.state is not ProposalState.PENDING:
        session.notifier.say("A requester could approve their own proposal: this must never happen.")
        return None
    await _type(session, f"/as {APPROVER}")
    await _type(session, f"/approve {number}")
    await session.wait_for_jobs()
    await _type(session, f"what accuracy did {number} get?")
    await _type(session, "/digest")
    return await session.app.store.job(proposal_id)


async def _type(session: Session, line: str) -> None:
    session.notifier.say(f"\n{session.chat.user}> {line}")
    await session.say(line)
