"""Shows in Slack what happened: the reconciler's `Notifier`. One card a proposal, always rendered whole from state.

The first post is not idempotent, so it is leased: claim, look whether a life before this has posted it, post, record.
Everything after it edits that message. Progress is coalesced; what people must know is also a reply in the thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Protocol

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.cards import Card, Cards
from bot.core.errors import Unavailable
from bot.core.job import Job, JobPhase
from bot.core.proposal import Proposal
from bot.policies import Policies
from bot.slack import blocks, charts, notices
from bot.slack.connection import NO_ANSWER, into
from bot.slack.rush import Rush
from bot.slack.text import fenced
from bot.store.store import Store
from bot.store.writing import Notice
from tools.engines.base import EngineRefused, EngineUnavailable
from tools.progress import Progress

log = logging.getLogger(__name__)

LEASE_SECONDS = 60  # for one post, its retries included
PROGRESS_SECONDS = 5.0  # between two edits of one card: chat.update allows 50 a minute in all
SERVER_ERROR = 500
REFUSED = frozenset({"invalid_blocks", "msg_too_long", "msg_blocks_too_long"})  # as blocks; as text it may pass
LOOK_BACK = 200  # messages of a thread looked through for a card that was posted before a crash
AGAIN_SECONDS = (0.5, 2.0, 5.0)  # between tries of one post whose answer was lost, within its lease
LOG_LINES = 20000  # of a log's file, from its end
TAIL_LINES, LINE_SHOWN = 15, 160  # lines of it, and characters of each, in the thread of a training that failed
THREAD, LOG = "thread", "log"  # what of a notice was shown, beside the people told
GONE = frozenset({"message_not_found", "channel_not_found", "is_archived", "not_in_channel", "thread_not_found"})
# Slack's own trouble, and what an administrator can put right: a notice is not to blame, and waits.
SLACK_AWAY = frozenset(
    {"ratelimited", "internal_error", "fatal_error", "service_unavailable", "request_timeout", "invalid_auth"}
    | {"not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope", "access_denied"}
)
CHANNEL_AWAY = frozenset({"is_archived", "not_in_channel", "channel_not_found", "restricted_action"})


class DigestText(Protocol):
    """A date's digest as a message of a channel."""

    async def __call__(self, channel: str, of: date) -> dict[str, Any]: ...


class CurveFile(Protocol):
    """The picture of a job's learning curve, if there is one."""

    async def __call__(self, name: str, progress: Progress) -> Path | None: ...


class LogLines(Protocol):
    """The last lines of a job's log that are for people, oldest first; an engine's own errors."""

    async def __call__(self, name: str, lines: int) -> Sequence[str]: ...


class SlackNotifier:
    def __init__(
        self,
        *,
        store: Store,
        cards: Cards,
        policies: Policies,
        client: AsyncWebClient,
        team: str,
        curve: CurveFile,
        log_lines: LogLines,
        digest: DigestText,
        rush: Rush,
    ) -> None:
        self._store = store
        self._cards = cards
        self._policies = policies
        self._client = client
        self._team = team
        self._curve = curve
        self._log_lines = log_lines
        self._digest = digest
        self._rush = rush
        self._shown: dict[int, set[str]] = {}  # notice → what of it came through, while it is not delivered whole
        self._edited: dict[str, float] = {}  # proposal → when its card was last edited for progress
        self._files = True  # until this Slack says that it takes none

    @property
    def teams(self) -> Collection[str]:
        return (self._team,)

    async def deliver(self, notice: Notice) -> None:
        """Bring the card up to date, and tell in the thread what people must know."""
        await self._rush.over()
        try:
            await self._deliver(notice)
        except NO_ANSWER as error:
            raise Unavailable(f"Slack does not answer ({type(error).__name__}).") from error
        except SlackApiError as error:
            if not _away(error, SLACK_AWAY | CHANNEL_AWAY):
                raise
            raise Unavailable(f"Slack takes nothing for {notice.channel} now ({_reason(error)}).") from error

    async def _deliver(self, notice: Notice) -> None:
        if notice.kind == "digest":
            await self._post_digest(notice.channel, date.fromisoformat(notice.subject))
            return
        card = await self._cards.card(notice.subject)
        await self.show(card)
        policy = await self._policies.of(card.proposal.team, card.proposal.channel)
        shown = self._shown.setdefault(notice.id, set())
        for told in notices.of(notice.kind, notice.actor, card, policy):
            whom = told.person or THREAD
            if whom not in shown:
                await self._tell(card.proposal, told)
                shown.add(whom)
        if notice.kind == "finished" and card.job is not None:
            if LOG not in shown:
                await self._show_log(card.proposal, card.job)
                shown.add(LOG)
            await self._show_curve(card.proposal, card.job, card.progress)
        self._shown.pop(notice.id, None)

    async def progress(self, job: Job, progress: Progress) -> None:
        """Edit the card, not more often than Slack allows; the newest state is what it shows."""
        now = time.monotonic()
        if self._rush.on or now - self._edited.get(job.proposal_id, 0.0) < PROGRESS_SECONDS:
            return
        self._edited[job.proposal_id] = now
        try:
            await self.show(await self._cards.card(job.proposal_id))
        except (SlackApiError, Unavailable) as error:
            log.info("progress of %s was not shown: %s", job.name, error)

    async def show(self, card: Card) -> None:
        """The card as it is now: edited if it stands somewhere, else posted once."""
        message = blocks.card(card)
        where = await self._store.card_message(card.proposal.id)
        if where is None:
            await self._post(card, message)
            return
        try:
            await _written(self._client.chat_update, channel=card.proposal.channel, ts=where, **message)
        except SlackApiError as error:
            if error.response.get("error") not in GONE:
                raise
            log.warning("the card of proposal %s is gone (%s)", card.proposal.number, error.response.get("error"))

    async def _post(self, card: Card, message: dict[str, Any]) -> None:
        proposal = card.proposal
        lease = timedelta(seconds=LEASE_SECONDS)
        if not await self._store.write(lambda writing: writing.claim_card(proposal.id, writing.now + lease)):
            raise Unavailable(f"The card of proposal {proposal.number} is just being posted.")
        channel, mark = proposal.channel, blocks.mark(proposal)
        try:
            where, new = await into(_thread(proposal), lambda thread: self._once(channel, thread, mark, message))
        except SlackApiError:  # refused, so it does not stand anywhere
            await self._store.write(lambda writing: writing.release_card(proposal.id))
            raise
        if not new:
            await _written(self._client.chat_update, channel=channel, ts=where, **message)
        await self._store.write(lambda writing: writing.card_posted(proposal.id, where))

    async def _post_digest(self, channel: str, of: date) -> None:
        """The digest of a date, which a channel gets once."""
        message = await self._digest(channel, of)
        mark = f"digest:{of.isoformat()}"
        message["blocks"][0]["block_id"] = mark
        await self._once(channel, None, mark, message)

    async def _once(self, channel: str, thread: str | None, mark: str, message: dict[str, Any]) -> tuple[str, bool]:
        """Post a marked message unless it stands there: where, and whether it is new. A lost answer may hide it."""
        for pause in AGAIN_SECONDS:
            where = await self._posted_before(channel, thread, mark)
            if where is not None:
                return where, False
            try:
                answer = await _written(self._client.chat_postMessage, channel=channel, thread_ts=thread, **message)
                return str(answer["ts"]), True
            except SlackApiError as error:
                code = error.response.status_code
                if code < SERVER_ERROR and error.response.get("error") != "ratelimited":
                    raise
                log.warning("a post was answered with HTTP %s; looking whether it stands", code)
            except NO_ANSWER as error:
                log.warning("the answer to a post was lost (%s); looking whether it stands", type(error).__name__)
            await asyncio.sleep(pause)
        raise Unavailable("Slack did not take a message; it is tried again.")

    async def _posted_before(self, channel: str, thread: str | None, mark: str) -> str | None:
        """A message that was posted and not recorded, by the block id that marks it, whatever becomes of metadata."""
        answer = await (
            self._client.conversations_replies(channel=channel, ts=thread, limit=LOOK_BACK)
            if thread
            else self._client.conversations_history(channel=channel, limit=LOOK_BACK)
        )
        for message in answer.get("messages") or []:
            if any(block.get("block_id") == mark for block in message.get("blocks") or []):
                return str(message["ts"])
        return None

    async def _tell(self, proposal: Proposal, told: notices.Told) -> None:
        """In the thread, or a person directly; one who cannot be told must not keep the others waiting."""
        said = {"unfurl_links": False, **told.message()}
        if told.person is None:
            said |= {"channel": proposal.channel}
            await into(
                _thread(proposal), lambda thread: _written(self._client.chat_postMessage, thread_ts=thread, **said)
            )
            return
        try:
            opened = await self._client.conversations_open(users=told.person)
            await _written(self._client.chat_postMessage, channel=opened["channel"]["id"], **said)
        except SlackApiError as error:
            if _away(error, SLACK_AWAY):
                raise
            log.warning("%s cannot be told directly: %s", told.person, _reason(error))

    async def _show_log(self, proposal: Proposal, job: Job) -> None:
        """Its tail in the thread where it failed, all of it as a file. The engine may not have it any more."""
        try:
            lines = await self._log_lines(job.name, LOG_LINES)
        except (EngineUnavailable, EngineRefused) as error:
            log.warning("no log of %s was shown: %s", job.name, error)
            return
        if lines and job.phase is JobPhase.FAILED:
            tail = "\n".join(line[:LINE_SHOWN] for line in lines[-TAIL_LINES:])
            await self._tell(proposal, notices.Told(text=f"The end of its log:\n{fenced(tail)}"))
        if lines:
            text = "\n".join(lines) + "\n"
            await self._upload(proposal, f"Log of {job.name}", content=text, filename=f"{job.name}.log")

    async def _show_curve(self, proposal: Proposal, job: Job, progress: Progress) -> None:
        path = await self._curve(job.name, progress) if self._files else None
        if path is not None:
            await self._upload(proposal, f"Learning curve of {job.name}", file=str(path), filename=path.name)

    async def _upload(self, proposal: Proposal, title: str, **file: Any) -> None:
        """A file into the thread. One that cannot be shown must not keep the end back."""
        if not self._files:
            return
        try:
            async with asyncio.timeout(LEASE_SECONDS):
                await into(
                    _thread(proposal),
                    lambda thread: self._client.files_upload_v2(
                        channel=proposal.channel, thread_ts=thread, title=title, **file
                    ),
                )
        except Exception as error:
            reason: object = error
            if isinstance(error, SlackApiError):
                reason = _reason(error)
            self._files = reason not in ("unknown_method", "missing_scope", "HTTP 404")
            log.warning("“%s” was not uploaded: %s", title, reason)


async def _written(write: Callable[..., Awaitable[Any]], **message: Any) -> Any:
    """Write a message; where this Slack refuses its charts and tables, the same as plain text."""
    try:
        return await write(**message)
    except SlackApiError as error:
        if error.response.get("error") not in REFUSED:
            raise
        log.warning("blocks were refused, so charts are shown as text: %s", error.response.get("response_metadata"))
        return await write(**charts.plainer(message))


def _away(error: SlackApiError, reasons: Collection[str]) -> bool:
    """Whether it may pass by itself, or by somebody's hand."""
    return error.response.status_code >= SERVER_ERROR or error.response.get("error") in reasons


def _reason(error: SlackApiError) -> str:
    return str(error.response.get("error") or f"HTTP {error.response.status_code}")


def _thread(proposal: Proposal) -> str | None:
    return proposal.thread or None
