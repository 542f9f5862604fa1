"""Clicks and modals: a person's own hand on a card. Committed first, acknowledged next, never silent.

Who it is comes from the signed payload. What a button carries (proposal, revision, digest) is only a claim: the
proposal is looked up and compared. The card itself changes by the outbox; whoever may not, or came too late, gets a
private, exact answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.approvals.deciding import Deciding, Hand
from bot.approvals.proposing import Asked, Proposing
from bot.cards import Card, Cards
from bot.core.errors import Refused, SignalboxError
from bot.core.proposal import Proposal, ProposalState, Verdict
from bot.core.proposal import proposal_id as id_of
from bot.desk import Desk
from bot.policies import Policies
from bot.slack import blocks, modals, text
from bot.slack.connection import NO_ANSWER, into
from bot.slack.rush import Rush
from bot.store.store import Store
from tools.desk import Caller, DeskError
from tools.spec import SpecError, parse_spec

log = logging.getLogger(__name__)

Payload = Mapping[str, Any]
STANDING = frozenset({ProposalState.PENDING, ProposalState.APPROVED})  # what a second press would only repeat
LOST = "Your click could not be recorded; nothing was changed. Please press it again."


@dataclass(frozen=True, kw_only=True)
class Press:
    """One click, as far as it can be trusted: the person and place are Slack's word, the rest was compared."""

    hand: Hand
    proposal_id: str  # the button's claim: looked up in the hand's workspace and channel by whoever uses it
    seen: str  # the digest that stood on the card
    trigger: str


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form that was sent, with the proposal it was opened for as that stands now."""

    hand: Hand
    proposal: Proposal
    seen: str


class Hands:
    def __init__(
        self,
        *,
        store: Store,
        cards: Cards,
        deciding: Deciding,
        proposing: Proposing,
        desk: Desk,
        policies: Policies,
        client: AsyncWebClient,
        team: str,
        home: Callable[[str], Awaitable[None]],
        rush: Rush,
    ) -> None:
        self._store = store
        self._cards = cards
        self._deciding = deciding
        self._proposing = proposing
        self._desk = desk
        self._policies = policies
        self._client = client
        self._team = team
        self._home = home  # shows a person their home page as it is now
        self._rush = rush
        self._answering: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Let the answers that are under way be given."""
        await asyncio.gather(*self._answering, return_exceptions=True)

    def register(self, app: AsyncApp) -> None:
        """Every action and view of a card but Approve, which `bot.slack.listeners` hands over by itself."""
        for action, handler in {
            blocks.REJECT: self._open(modals.reject),
            blocks.EDIT: self._open(modals.edit),
            blocks.RERUN: self._open(modals.rerun),
            blocks.DETAILS: self._open(modals.details),
            blocks.CANCEL: self._cancel,
            blocks.RETRY: self._retry,
        }.items():
            app.action(action)(self._pressed(handler))
        app.action(blocks.COMPARE)(self._asked(self._compare))
        app.action(modals.PAGE)(self._page)
        app.view(modals.REJECT_VIEW)(self._submitted(self._reject))
        app.view(modals.EDIT_VIEW)(self._submitted(self._revise))
        app.view(modals.RERUN_VIEW)(self._submitted(self._rerun))

    # -- clicks -----------------------------------------------------------------------------------------------------

    async def approve(self, body: Payload) -> None:
        """A click on Approve: the vote is committed when this returns; a refusal is told beside."""
        self._rush.click()
        refusal = await self._handled(self._approve, body)
        if refusal or _at_home(body):
            task = asyncio.create_task(self._after(body, refusal))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    def _pressed(self, handler: Callable[[Press], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """Done, acknowledged, and a refusal told after: Slack waits three seconds for the acknowledgement."""

        async def listener(ack: AsyncAck, body: Payload) -> None:
            refusal = await self._handled(handler, body)
            await ack()
            await self._after(body, refusal)

        return listener

    def _asked(self, handler: Callable[[Press], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """A click that changes nothing and may take its time is acknowledged first."""

        async def listener(ack: AsyncAck, body: Payload) -> None:
            await ack()
            await self._after(body, await self._handled(handler, body))

        return listener

    async def _after(self, body: Payload, refusal: str) -> None:
        """Beside the acknowledgement: why it was not done, and the home page that the click was on."""
        if refusal:
            await self._answer(body, refusal)
        if _at_home(body):
            try:
                await self._home(str(body["user"]["id"]))
            except (SignalboxError, SlackApiError, *NO_ANSWER) as error:
                log.warning("a home page was not shown anew: %s", error)

    async def _handled(self, handler: Callable[[Press], Awaitable[None]], body: Payload) -> str:
        """Why it was not done; empty if it was."""
        try:
            await handler(await self._press(body))
        except (SignalboxError, DeskError) as error:
            return str(error)
        except Exception:
            log.exception("a click failed")
            return LOST
        return ""

    async def _press(self, body: Payload) -> Press:
        channel = (body.get("channel") or {}).get("id")
        proposal_id, seen = blocks.parse_value(str(body["actions"][0].get("value", "")))
        if channel is None:  # on the home page
            channel = (await self._found(proposal_id)).channel
        return Press(
            hand=Hand(team=self._team, channel=channel, user=str(body["user"]["id"])),
            proposal_id=proposal_id,
            seen=seen,
            trigger=str(body.get("trigger_id", "")),
        )

    async def _found(self, proposal_id: str, channel: str | None = None) -> Proposal:
        proposal = await self._store.proposal_by_id(proposal_id)
        if proposal is None or proposal.team != self._team or channel not in (None, proposal.channel):
            raise Refused("This button does not belong to a proposal of this channel.")
        return proposal

    async def _approve(self, press: Press) -> None:
        await self._deciding.decide(press.hand, press.proposal_id, Verdict.APPROVE, seen_digest=press.seen)

    async def _cancel(self, press: Press) -> None:
        proposal = await self._found(press.proposal_id, press.hand.channel)
        await self._deciding.cancel(press.hand, proposal.number)

    async def _retry(self, press: Press) -> None:
        """The same with what may help it, as a new proposal of whoever presses first; anew if that came to nothing."""
        proposal = await self._found(press.proposal_id, press.hand.channel)
        card = await self._cards.card(proposal.id)
        if not card.remedy:
            raise Refused("Nothing is known to help this training; press Rerun with changes instead.")
        event_id, ordinal = f"retry:{proposal.id}", 0
        while made := await self._store.proposal_by_id(id_of(self._team, event_id, ordinal)):
            if made.state in STANDING:
                raise Refused(f"Proposal {made.number} asks for this already and is {made.state}; go on from its card.")
            ordinal += 1
        await self._propose_again(press.hand, proposal, card.remedy, event_id, ordinal)

    async def _compare(self, press: Press) -> None:
        proposal = await self._found(press.proposal_id, press.hand.channel)
        caller = _caller(proposal, press.hand)
        said = await self._desk.compare(caller, [str(proposal.number), "best"])
        where: dict[str, Any] = {"channel": proposal.channel, "user": press.hand.user, "text": text.fenced(said)}
        await into(proposal.thread or None, lambda thread: self._client.chat_postEphemeral(thread_ts=thread, **where))

    def _open(self, view: Callable[[Card], dict[str, Any]]) -> Callable[[Press], Awaitable[None]]:
        async def handler(press: Press) -> None:
            await self._found(press.proposal_id, press.hand.channel)
            card = await self._cards.card(press.proposal_id)
            await self._client.views_open(trigger_id=press.trigger, view=view(card))

        return handler

    async def _page(self, ack: AsyncAck, body: Payload) -> None:
        """Another page of the details."""
        proposal_id, page = modals.parse_page(str(body["actions"][0].get("value", "")))
        proposal = await self._store.proposal_by_id(proposal_id)
        if proposal is not None and proposal.team == self._team:
            view = modals.details(await self._cards.card(proposal_id), page=page)
            await self._client.views_update(view_id=body["view"]["id"], hash=body["view"]["hash"], view=view)
        await ack()

    # -- modals -----------------------------------------------------------------------------------------------------

    def _submitted(self, handler: Callable[[Form, Payload], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def listener(ack: AsyncAck, body: Payload, view: Payload) -> None:
            try:
                proposal_id, seen = blocks.parse_value(str(view.get("private_metadata", "")))
                proposal = await self._found(proposal_id)
                hand = Hand(team=self._team, channel=proposal.channel, user=str(body["user"]["id"]))
                await handler(Form(hand=hand, proposal=proposal, seen=seen), view)
            except modals.FieldErrors as error:
                await ack(response_action="errors", errors=error.by_block)
            except SignalboxError as error:
                await ack(response_action="errors", errors={modals.first_input(view): str(error)[:2000]})
            except Exception:
                log.exception("a form failed")
                await ack(response_action="errors", errors={modals.first_input(view): LOST})
            else:
                await ack()

        return listener

    async def _reject(self, form: Form, view: Payload) -> None:
        reason = modals.reason_of(view)
        await self._deciding.decide(form.hand, form.proposal.id, Verdict.REJECT, seen_digest=form.seen, reason=reason)

    async def _revise(self, form: Form, view: Payload) -> None:
        if form.seen != form.proposal.digest:
            raise Refused("It was changed meanwhile; close this form and read the new card.")
        changes = modals.changes_of(view, form.proposal.offer.spec)
        await self._deciding.revise(form.hand, form.proposal.number, changes)

    async def _rerun(self, form: Form, view: Payload) -> None:
        """The same with changes, as a new proposal of whoever asks; the same form sent twice is one."""
        changes = modals.changes_of(view, form.proposal.offer.spec)
        await self._propose_again(form.hand, form.proposal, changes, f"view:{view['id']}")

    async def _propose_again(
        self, hand: Hand, proposal: Proposal, changes: Mapping[str, object], event_id: str, ordinal: int = 0
    ) -> None:
        parameters: dict[str, object] = proposal.offer.spec.canonical()
        recipe = str(parameters.pop("recipe"))
        try:
            spec = parse_spec(recipe, {**parameters, **changes})
        except SpecError as error:
            raise Refused(str(error)) from error
        asked = Asked(
            team=self._team,
            channel=proposal.channel,
            thread=proposal.thread,
            requester=hand.user,
            prompt=f"again as proposal {proposal.number}, with changes",
            event_id=event_id,
            ordinal=ordinal,
        )
        await self._proposing.propose(asked, spec)

    # -- answers ----------------------------------------------------------------------------------------------------

    async def _answer(self, body: Payload, sentence: str) -> None:
        """Privately: beside the card, or as a direct message where that cannot be, as on the home page."""
        try:
            sentence = text.named(sentence, await self._people(body))
        except SignalboxError as error:  # what is wrong may be the very database that knows the people
            log.info("a refusal names nobody: %s", error)
        user, channel = str(body["user"]["id"]), (body.get("channel") or {}).get("id")
        thread = (body.get("message") or {}).get("thread_ts")
        try:
            if channel is not None:
                await self._client.chat_postEphemeral(channel=channel, user=user, thread_ts=thread, text=sentence)
                return
        except (SlackApiError, *NO_ANSWER) as error:
            log.info("%s is told directly, not in %s: %s", user, channel, error)
        try:
            opened = await self._client.conversations_open(users=user)
            await self._client.chat_postMessage(channel=opened["channel"]["id"], text=sentence)
        except (SlackApiError, *NO_ANSWER) as error:
            log.warning("%s could not be told: %s (%s)", user, sentence, error)

    async def _people(self, body: Payload) -> list[str]:
        """Whom a refusal may name: those who have to do with the proposal."""
        proposal_id, _ = blocks.parse_value(str((body.get("actions") or [{}])[0].get("value", "")))
        proposal = await self._store.proposal_by_id(proposal_id)
        if proposal is None:
            return []
        policy = await self._policies.of(self._team, proposal.channel)
        named = {proposal.requester, proposal.author, proposal.decided_by or "", *policy.approvers}
        return sorted(named - {""})


def _at_home(body: Payload) -> bool:
    return (body.get("view") or {}).get("type") == "home"


def _caller(proposal: Proposal, hand: Hand) -> Caller:
    return Caller(
        team=hand.team,
        channel=proposal.channel,
        thread=proposal.thread,
        user=hand.user,
        event_id="click",
        prompt="compare",
    )
