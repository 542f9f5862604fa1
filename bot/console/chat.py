"""The terminal chat: reads lines, from a person or a pipe, and answers them.

A line that begins with `/` is a command of the person whose name `/as` last gave; anything else goes to the agent.
Deciding is a command here and nothing else. Lines for the agent are recorded before they are answered, so that a
restart answers what a crash cut off.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bot import wording
from bot.accounts import spend
from bot.approvals.deciding import Hand
from bot.console import render
from bot.console.notifier import CHANNEL, TEAM, TerminalNotifier
from bot.core.errors import Refused, SignalboxError
from bot.core.periods import parse_period
from bot.core.proposal import ProposalState, Verdict
from bot.inbox import Inbox
from bot.store.store import Message
from tools.crashpoints import crash
from tools.engines.base import EngineUnavailable

if TYPE_CHECKING:
    from bot.agent.assistant import Assistant
    from bot.bootstrap import App

log = logging.getLogger(__name__)

THREAD = "main"
LIST = 20
PENDING_SHOWN = 5  # cards at the start; /inbox shows all
NAME_LIMIT = 60  # characters of a person's name

Handler = Callable[["Chat", str], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Command:
    usage: str
    help: str
    run: Handler


class Chat:
    """One session. `failed` holds what went wrong and was not made good by a later line."""

    def __init__(self, app: App, assistant: Assistant, notifier: TerminalNotifier, console: Console) -> None:
        self._app = app
        self._inbox = Inbox(app.store)
        self._assistant = assistant
        self._notifier = notifier
        self._console = console
        self._session = uuid.uuid4().hex[:12]
        self._count = 0
        self.user = app.settings.chat_user
        self.failed: set[str] = set()
        self.approved: list[str] = []  # proposals whose jobs this session has to answer for
        self.over = False

    @property
    def _hand(self) -> Hand:
        return Hand(team=TEAM, channel=CHANNEL, user=self.user)

    async def show_pending(self) -> None:
        """The cards that wait for a decision, so that what is decided on has been shown."""
        pending = await self._app.store.proposals(TEAM, CHANNEL, states={ProposalState.PENDING}, limit=PENDING_SHOWN)
        undelivered = {notice.subject for notice in await self._app.store.undelivered((TEAM,), due=False)}
        for proposal in reversed(pending):
            if proposal.id not in undelivered:
                await self._notifier.show(await self._app.cards.card(proposal.id))

    async def answer_left_over(self) -> None:
        """Answer what was recorded before a crash and never answered."""
        for message in await self._inbox.take_up(TEAM):
            await self._pick_up(message, status=True)

    async def watch(self) -> None:
        """Answer what a chat that was killed left behind, when its lease is over."""
        async with asyncio.TaskGroup() as turns:
            await self._inbox.watch(TEAM, lambda message: turns.create_task(self._pick_up(message, status=False)))

    async def leave(self) -> None:
        """What is not answered may be by others."""
        await self._inbox.release()

    async def _pick_up(self, message: Message, *, status: bool) -> None:
        self._notifier.say(f"Picking up what {message.user} said before: {message.text[:200]}")
        await self._guarded("agent", lambda: self._answer(message, status=status))

    async def handle(self, line: str) -> None:
        """One line. Errors become sentences; nothing is raised."""
        text = line.strip()
        if not text:
            return
        if not text.startswith("/"):
            await self._guarded("agent", lambda: self._ask(text))
            return
        name, _, rest = text[1:].partition(" ")
        command = COMMANDS.get(name.lower())
        target = f"{name.lower()} {rest.split()[0] if rest.split() else ''}".strip()
        if command is None:
            self._fail(target, f"There is no command /{name[:30]}. /help lists them.")
            return
        await self._guarded(target, lambda: command.run(self, rest.strip()))

    async def _guarded(self, target: str, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except (SignalboxError, EngineUnavailable) as error:
            self._fail(target, str(error))
        except Exception as error:  # the session must outlive any one line
            log.exception("a line could not be handled")
            self._fail(target, f"That could not be done ({type(error).__name__}); nothing was changed. See the log.")
        else:
            self.failed.discard(target)

    def _fail(self, target: str, sentence: str) -> None:
        self.failed.add(target)
        self._console.print(Text(render.clean(sentence), style="red"), soft_wrap=True)

    # -- the agent ------------------------------------------------------------------------------------------------

    async def _ask(self, text: str) -> None:
        self._count += 1
        event_id = f"{self._session}-{self._count}"
        message = Message(team=TEAM, event_id=event_id, channel=CHANNEL, thread=THREAD, user=self.user, text=text)
        await self._app.store.receive(message)
        await self._answer(message, status=True)

    async def _answer(self, message: Message, *, status: bool) -> None:
        crash("inbox.received")
        async with self._inbox.held(message) as answered:
            with self._console.status("thinking…") if status and self._console.is_terminal else nullcontext():
                said = await self._assistant.answer(message.text, caller := message.caller())
            self._notifier.say(said)
            answered()
            self.failed -= {tool for tool, good in caller.outcomes.items() if good}
            self.failed |= {tool for tool, good in caller.outcomes.items() if not good}
            await self._app.store.answered(message.team, message.event_id)

    # -- commands -------------------------------------------------------------------------------------------------

    async def act_as(self, rest: str) -> None:
        name = rest.strip()
        if not name or len(name) > NAME_LIMIT or not name.isprintable() or " " in name:
            raise Refused(f"You are {self.user}. To be someone else: /as NAME (one word).")
        self.user = name
        policy = await self._app.policies.of(TEAM, CHANNEL)
        role = "an approver" if name in policy.approvers else "not an approver"
        self._notifier.say(f"You are now {name}, {role}.")

    async def approve(self, rest: str) -> None:
        number, _ = _numbered(rest, "/approve ID")
        seen = await self._seen(number)
        proposal = await self._app.deciding.decide(self._hand, number, Verdict.APPROVE, seen_digest=seen)
        if proposal.state is ProposalState.APPROVED:
            self.approved.append(proposal.id)

    async def reject(self, rest: str) -> None:
        number, reason = _numbered(rest, "/reject ID WHY")
        if not reason:
            raise Refused(f"Say why, so that the requester knows what to change: /reject {number} WHY")
        seen = await self._seen(number)
        await self._app.deciding.decide(self._hand, number, Verdict.REJECT, seen_digest=seen, reason=reason)

    async def _seen(self, number: int) -> str:
        """The digest of the card that stood in this terminal; a card that never did is shown first."""
        if number not in self._notifier.shown:
            proposal = await self._app.store.proposal(TEAM, CHANNEL, number)
            proposal.must_be_pending(await self._app.store.now())
            await self._notifier.show(await self._app.cards.card(proposal.id))
            raise Refused("That is its card; read it, then say it again.")
        return self._notifier.shown[number]

    async def edit(self, rest: str) -> None:
        number, assignments = _numbered(rest, "/edit ID lr=3e-4")
        changes = {}
        for word in assignments.split():
            name, equals, given = word.partition("=")
            if not (name and equals and given):
                raise Refused(f"“{word[:40]}” is no change; write NAME=VALUE, such as lr=3e-4.")
            changes[name] = given
        revised = await self._app.deciding.revise(self._hand, number, changes)
        said = wording.changes(revised.before.offer, revised.proposal.offer)
        lost = f" It loses {wording.counted(len(revised.before.votes), 'vote')}." if revised.before.votes else ""
        self._notifier.say(f"Proposal {number} is now revision {revised.proposal.revision}: {said}.{lost}")

    async def withdraw(self, rest: str) -> None:
        number, reason = _numbered(rest, "/withdraw ID")
        await self._app.deciding.withdraw(self._hand, number, reason)

    async def cancel(self, rest: str) -> None:
        number, _ = _numbered(rest, "/cancel ID")
        await self._app.deciding.cancel(self._hand, number)

    async def list_jobs(self, rest: str) -> None:
        proposals = await self._app.store.proposals(TEAM, CHANNEL, limit=LIST)
        if not proposals:
            self._notifier.say("There are no proposals or jobs yet. Ask for one: train digits for 3 epochs.")
            return
        cards = [await self._app.cards.card(proposal.id) for proposal in proposals]
        self._console.print(render.jobs_table(cards, "Proposals and jobs"))

    async def inbox(self, rest: str) -> None:
        pending = await self._app.store.proposals(TEAM, CHANNEL, states={ProposalState.PENDING})
        cards = [await self._app.cards.card(proposal.id) for proposal in reversed(pending)]
        mine = [card for card in cards if self.user in card.able]
        for card in mine:
            await self._notifier.show(card)
        others = len(cards) - len(mine)
        if not mine:
            self._notifier.say(f"Nothing waits for your decision, {self.user}.")
        if others:
            self._notifier.say(f"{wording.counted(others, 'other proposal')} for other people: see /jobs.")

    async def show(self, rest: str) -> None:
        number, _ = _numbered(rest, "/show ID")
        proposal = await self._app.store.proposal(TEAM, CHANNEL, number)
        await self._notifier.show(await self._app.cards.card(proposal.id))

    async def details(self, rest: str) -> None:
        number, _ = _numbered(rest, "/details ID")
        proposal = await self._app.store.proposal(TEAM, CHANNEL, number)
        self._notifier.say(json.dumps(proposal.offer.document(), indent=2, ensure_ascii=False))
        self._notifier.say(f"SHA-256 of its canonical JSON, which every vote stores: {proposal.digest}")

    async def log(self, rest: str) -> None:
        number, _ = _numbered(rest, "/log ID")
        proposal = await self._app.store.proposal(TEAM, CHANNEL, number)
        lines = await self._app.engine.logs(proposal.job_name, 40)
        self._notifier.say("\n".join(lines) or f"{proposal.job_name} has written nothing yet.")

    async def spend(self, rest: str) -> None:
        now = await self._app.store.now()
        try:
            period = parse_period(rest or "month", now, self._app.settings.zone)
        except ValueError:
            raise Refused("Say /spend today, yesterday, week, month, last month, 2026-11-23 or 2026-11.") from None
        found = await spend(self._app.store, TEAM, period, now)
        policy = await self._app.policies.of(TEAM, CHANNEL)
        budget = await self._app.pricing.budget(policy, TEAM, CHANNEL, now)
        self._notifier.say("\n".join(wording.spend_lines(found, budget)))

    async def digest(self, rest: str) -> None:
        today = (await self._app.store.now()).astimezone(self._app.settings.zone).date()
        try:
            of = date.fromisoformat(rest) if rest else today
            if not 1970 <= of.year <= 9000:
                raise ValueError(rest)
        except ValueError:
            raise Refused("Say /digest for today so far, or /digest 2026-11-23.") from None
        self._notifier.say("\n".join(await self._notifier.digest(of)))

    async def help(self, rest: str) -> None:
        grid = Table.grid(padding=(0, 2))
        for command in COMMANDS.values():
            grid.add_row(Text(command.usage, "bold"), Text(command.help))
        self._notifier.say("Anything without a slash goes to the agent: train digits for 3 epochs with lr 2e-3")
        self._console.print(grid)

    async def quit(self, rest: str) -> None:
        self.over = True


def _numbered(rest: str, usage: str) -> tuple[int, str]:
    """A proposal's number and what follows it."""
    word, _, tail = rest.partition(" ")
    digits = word.lstrip("#")
    if not digits.isdecimal() or len(digits) > 9:
        raise Refused(f"Name a proposal by its number: {usage}. /jobs lists them.")
    return int(digits), tail.strip()


COMMANDS: dict[str, Command] = {
    "as": Command(usage="/as NAME", help="speak as somebody else, to try requester and approver", run=Chat.act_as),
    "jobs": Command(usage="/jobs", help="proposals and jobs, newest first", run=Chat.list_jobs),
    "inbox": Command(usage="/inbox", help="the cards that wait for your decision", run=Chat.inbox),
    "approve": Command(usage="/approve ID", help="set the signal to green", run=Chat.approve),
    "reject": Command(usage="/reject ID WHY", help="say no, and why", run=Chat.reject),
    "edit": Command(usage="/edit ID lr=3e-4 …", help="a new revision: new price, votes reset", run=Chat.edit),
    "withdraw": Command(usage="/withdraw ID", help="take your own proposal back", run=Chat.withdraw),
    "cancel": Command(usage="/cancel ID", help="end a queued or running job", run=Chat.cancel),
    "show": Command(usage="/show ID", help="the card as it stands", run=Chat.show),
    "details": Command(usage="/details ID", help="the whole manifest that its digest covers", run=Chat.details),
    "log": Command(usage="/log ID", help="the end of a training's output", run=Chat.log),
    "spend": Command(usage="/spend [PERIOD]", help="what was spent: today, week, month, 2026-11, …", run=Chat.spend),
    "digest": Command(usage="/digest [DATE]", help="a day's digest; today's so far without a date", run=Chat.digest),
    "help": Command(usage="/help", help="this list", run=Chat.help),
    "quit": Command(usage="/quit", help="leave; running jobs go on", run=Chat.quit),
}
