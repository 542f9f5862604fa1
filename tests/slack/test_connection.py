"""An envelope is handled once, whatever copies of it come; what failed may come again."""

from __future__ import annotations

import asyncio

import pytest
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.socket_mode.request import SocketModeRequest

from bot.slack import connection
from bot.slack.connection import Envelopes


class Counting:
    """A Bolt app that answers with the number of its runs, and with a failure as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.runs, self.failures = 0, failures
        self.app = AsyncApp(authorize=_authorized, signing_secret="x")
        self.app.use(self._handle)

    async def _handle(self, req: AsyncBoltRequest, resp: BoltResponse) -> BoltResponse:
        self.runs += 1
        run = self.runs
        await asyncio.sleep(0.05)  # for a copy to come meanwhile
        if run <= self.failures:
            raise OSError("the database is away")
        return BoltResponse(status=200, body=str(run))


async def _authorized() -> AuthorizeResult:
    return AuthorizeResult(enterprise_id=None, team_id="T1", bot_token="xoxb-1")


def envelope(name: str) -> SocketModeRequest:
    return SocketModeRequest(type="interactive", envelope_id=name, payload={"type": "block_actions"})


async def test_copies_at_once_and_later_get_the_answer_of_the_first() -> None:
    counting = Counting()
    envelopes = Envelopes(counting.app)
    answers = await asyncio.gather(envelopes.answer(envelope("a")), envelopes.answer(envelope("a")))
    answers.append(await envelopes.answer(envelope("a")))
    assert [(one.status, one.body) for one in answers] == [(200, "1")] * 3
    assert (await envelopes.answer(envelope("b"))).body == "2"


async def test_a_copy_whose_connection_is_gone_takes_nothing_from_the_other() -> None:
    counting = Counting()
    envelopes = Envelopes(counting.app)
    first = asyncio.create_task(envelopes.answer(envelope("a")))
    await asyncio.sleep(0.01)
    first.cancel()
    assert (await envelopes.answer(envelope("a"))).body == "1"


async def test_what_failed_is_handled_anew_when_it_comes_again() -> None:
    counting = Counting(failures=1)
    envelopes = Envelopes(counting.app)
    assert (await envelopes.answer(envelope("a"))).status == 500
    again = await envelopes.answer(envelope("a"))
    assert (again.status, again.body) == (200, "2")


async def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ENVELOPES_KEPT", 2)
    counting = Counting()
    envelopes = Envelopes(counting.app)
    for name in ("a", "b", "c", "c", "a"):
        await envelopes.answer(envelope(name))
    assert counting.runs == 4
