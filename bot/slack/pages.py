"""What people open rather than say: the home page, the slash command, suggested prompts, feedback on an answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.cards import Card, Cards
from bot.core.errors import SignalboxError
from bot.desk import Desk
from bot.policies import Policies
from bot.slack import home, text
from bot.slack.connection import NO_ANSWER, OK
from bot.slack.conversation import FEEDBACK, Conversation
from bot.store.store import Store
from tools.desk import Caller, DeskError

log = logging.getLogger(__name__)

Payload = Mapping[str, Any]
PROMPTS = (
    "train digits for 3 epochs with lr 2e-3",
    "what would mnist for 5 epochs cost?",
    "how is it doing?",
    "what did we spend this month?",
)
HELP = (
    "Mention me in a channel, or write to me here: *train digits for 3 epochs, lr 2e-3*. I answer with a card, "
    "and people approve or reject it there.\n"
    "`/signalbox jobs` what there is · `inbox` what waits for you · `spend [period]` · `digest [date]`"
)


class Pages:
    def __init__(
        self,
        *,
        store: Store,
        cards: Cards,
        policies: Policies,
        desk: Desk,
        conversation: Conversation,
        client: AsyncWebClient,
        team: str,
        digest: Callable[[str, date | None], Awaitable[str]],
    ) -> None:
        self._store = store
        self._cards = cards
        self._policies = policies
        self._desk = desk
        self._conversation = conversation
        self._client = client
        self._team = team
        self._digest = digest

    def register(self, app: AsyncApp) -> None:
        """Home page, command, feedback."""
        app.event("app_home_opened")(self._opened)
        app.command("/signalbox")(self._command)
        app.action(FEEDBACK)(self._feedback)

    async def _opened(self, event: Payload) -> None:
        if event.get("tab") == "messages":
            prompts = [{"title": prompt, "message": prompt} for prompt in PROMPTS]
            await self._conversation.optional(
                "assistant.threads.setSuggestedPrompts", channel_id=event.get("channel"), prompts=prompts
            )
            return
        await self.publish(str(event["user"]))

    async def publish(self, user: str) -> None:
        """The person's home page as it is now."""
        proposals = await self._store.pending_of_team(self._team)
        pending = [await self._cards.card(proposal.id) for proposal in proposals]
        jobs = await self._store.jobs(self._team, limit=20)
        mine = [await self._cards.card(job.proposal_id) for job in jobs]
        policy = await self._policies.of(self._team, "")
        view = home.view(
            user=user,
            pending=[card for card in pending if user in card.able],
            jobs=mine,
            policy=policy,
            spend=await self._desk.spend(self._caller(user, ""), "month"),
        )
        await self._client.views_publish(user_id=user, view=view)

    async def _command(self, ack: AsyncAck, command: Payload, respond: AsyncRespond) -> None:
        await ack()
        user, channel = str(command["user_id"]), str(command["channel_id"])
        verb, _, rest = str(command.get("text", "")).strip().partition(" ")
        try:
            said = await self._said(verb.lower(), rest.strip(), self._caller(user, channel))
        except (SignalboxError, DeskError) as error:
            said = text.escape(str(error))
        try:
            for part in text.split(said):
                if not await _responded(respond, part):
                    await self._client.chat_postEphemeral(channel=channel, user=user, text=part)
        except (SlackApiError, *NO_ANSWER) as error:
            log.warning("%s was not answered in %s: %s", user, channel, error)

    async def _said(self, verb: str, rest: str, caller: Caller) -> str:
        match verb:
            case "jobs":
                return text.fenced(await self._desk.jobs(caller, rest or None))
            case "inbox":
                cards = [await self._cards.card(one.id) for one in await self._store.pending_of_team(self._team)]
                return _inbox([card for card in cards if caller.user in card.able])
            case "spend":
                return text.fenced(await self._desk.spend(caller, rest or "month"))
            case "digest":
                return text.fenced(await self._digest(caller.channel, _date(rest)))
            case _:
                return HELP

    async def _feedback(self, ack: AsyncAck, body: Payload) -> None:
        verdict = str(body["actions"][0].get("value", ""))[:16]
        channel, message, user = str(body["channel"]["id"]), str(body["message"]["ts"]), str(body["user"]["id"])
        await self._store.write(lambda writing: writing.save_feedback(self._team, channel, message, user, verdict))
        await ack()

    def _caller(self, user: str, channel: str) -> Caller:
        return Caller(team=self._team, channel=channel, thread="", user=user, event_id="page", prompt="")


async def _responded(respond: AsyncRespond, words: str) -> bool:
    """Whether the command's own link took it, which works where the bot is no member. Not every server has one."""
    if not respond.response_url:
        return False
    try:
        return (await respond(words, response_type="ephemeral")).status_code == OK
    except NO_ANSWER as error:
        log.info("a command's link does not answer (%s)", type(error).__name__)
        return False


def _inbox(cards: list[Card]) -> str:
    if not cards:
        return "Nothing waits for your decision."
    rows = [
        f"• Proposal {card.proposal.number}: {card.proposal.offer.spec.recipe} by <@{card.proposal.requester}> in "
        f"<#{card.proposal.channel}>, up to {card.proposal.offer.estimate.ceiling}"
        for card in cards
    ]
    return "\n".join(["These wait for your decision:", *rows])


def _date(words: str) -> date | None:
    """The day that was named; None where none was."""
    try:
        return date.fromisoformat(words) if words else None
    except ValueError as error:
        raise DeskError("Write the day as 2026-11-24, or nothing for today.") from error
