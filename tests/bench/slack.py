"""Durable clicks beside bare Bolt, clicks while 500 agent turns hang, start and memory: `make bench-slack`.

The server under test is a process of its own; its CPU time is what the kernel counted for it. "click path" is the bot
with its reconciler asleep; "whole bot" also drives jobs and edits cards, which follow when the rush of clicks is over.
Beside each burst bare Bolt has one of its own: a row's ratio is the middle of its bursts' own ratios, for machines that
are quick in one second and slow in the next. A click counts as kept only if its vote is in the database.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from bot.approvals.proposing import Asked
from bot.bootstrap import opened
from bot.reconciler import Reconciler
from bot.settings import SOURCE, Settings, load
from bot.slack import blocks
from tests.fakes import trainer
from tests.fakes.openai_server import KEY, OpenAIServer, Reply
from tests.fakes.slack import Message, SlackServer, payloads
from tools.spec import parse_spec

AT_ONCE = 50
PACE = 200  # clicks/s
WARM = 20
BURSTS = 15  # short ones, each with bare Bolt's beside it: the middle one by its ratio counts
BARE_FACTOR = 4  # so many more clicks for the bare app, whose CPU time is short beside the kernel's 10 ms ticks
PACED_FACTOR = 3  # so many more clicks at a pace than in a burst
GOAL_CPU, GOAL_P99_MS, GOAL_ACK_S = 4.0, 150.0, 0.2
POLICY = """
approvers: [U1, U2]
quorum: [{{approvals: {needed}}}]
budget_per_month: "1000000"
open_proposals_per_person: 100000
open_proposals_per_channel: 100000
tell_approvers: "no"
remind_before_minutes: null
"""


# -- the processes under test --------------------------------------------------------------------------------------


async def _bare(port: int) -> None:
    """Bolt with a no-op listener behind the same front, told the same secret."""
    from slack_bolt.async_app import AsyncApp

    from bot.slack.connection import web_client
    from bot.slack.http import Front

    async def nothing() -> str:
        return ""

    async def none() -> dict[str, float]:
        return {}

    async def pressed(ack: Callable[[], Awaitable[None]]) -> None:
        await ack()

    settings = load()
    assert settings.slack_bot_token and settings.slack_signing_secret
    client = web_client(settings.slack_bot_token.get_secret_value(), settings.slack_api_url)
    app = AsyncApp(client=client, signing_secret=settings.slack_signing_secret.get_secret_value())
    app.action(blocks.APPROVE)(pressed)
    await Front(app, host="127.0.0.1", port=port, ready=nothing, numbers=none).start()
    await asyncio.Event().wait()


async def _asleep() -> None:
    """The bot as it is, but nobody reconciles."""
    from bot.slack.service import serve

    async def run(self: Reconciler) -> None:
        await asyncio.Event().wait()

    Reconciler.run = run  # type: ignore[method-assign]
    await serve(load())


async def _fake() -> None:
    async with SlackServer(rates=None) as slack:
        print(slack.port, flush=True)
        await asyncio.Event().wait()


# -- a bench's surroundings ----------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Place:
    """One home with its pending proposals, and the clicks for them."""

    home: Path
    environment: dict[str, str]
    port: int
    bodies: list[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/slack/events"

    def count(self, table: str) -> int:
        with sqlite3.connect(self.home / "signalbox.db") as database:
            return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def undelivered(self) -> int:
        where = "delivered_at IS NULL AND set_aside_at IS NULL"
        with sqlite3.connect(self.home / "signalbox.db") as database:
            return int(database.execute(f"SELECT count(*) FROM outbox WHERE {where}").fetchone()[0])


WORLD = SlackServer(rates=None)  # never started: it knows how payloads and signatures look


def _environment(home: Path, slack_url: str, needed: int, port: int, **more: str) -> dict[str, str]:
    home.mkdir(parents=True, exist_ok=True)
    policy = home / "policy.yaml"
    policy.write_text(POLICY.format(needed=needed), encoding="utf-8")
    program, _ = trainer.install(home, "hang")
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("SIGNALBOX_", "OPENAI_", "SLACK_"))
    }
    return own | {
        "SIGNALBOX_HOME": str(home),
        "SIGNALBOX_TRAINER_PYTHON": str(program),
        "SIGNALBOX_POLICY_FILE": str(policy),
        "SIGNALBOX_SLACK_MODE": "http",
        "SIGNALBOX_HTTP_PORT": str(port),
        "SLACK_API_URL": slack_url,
        "SLACK_BOT_TOKEN": WORLD.bot_token,
        "SLACK_SIGNING_SECRET": WORLD.signing_secret,
        "PYTHONPATH": str(SOURCE),
        **more,
    }


def _settings(environment: dict[str, str]) -> Settings:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        return load()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _click(shown: dict[str, Any], user: str) -> bytes:
    """What Slack sends when this person presses Approve on this card."""
    bot = WORLD.home_team.bot
    message = Message(channel="C1", team="T1", user=bot.id, text=str(shown["text"]), blocks=list(shown["blocks"]))
    pressed = next(
        (block, element)
        for block in message.blocks
        for element in block.get("elements", [])
        if element.get("action_id") == blocks.APPROVE
    )
    block, element = {"block_id": "b", **pressed[0]}, pressed[1]
    body = payloads.message_action(
        WORLD.home_team,
        WORLD.app_id,
        WORLD.home_team.users[user],
        message,
        "1.trigger",
        payloads.action(block, element, None),
        "http://127.0.0.1:9/respond",
    )
    return WORLD.courier.post.encode("interactive", body)[0]


async def _place(home: Path, slack_url: str, clicks: int, *, needed: int, **more: str) -> Place:
    """A home with so many proposals, made by the use case, before any bot runs on it."""
    port = _free_port()
    environment = _environment(home, slack_url, needed, port, **more)
    async with opened(_settings(environment)) as app:

        async def body(index: int) -> bytes:
            asked = Asked(
                team="T1", channel="C1", thread="", requester="U3", prompt="train digits", event_id=f"bench:{index}"
            )
            proposal = await app.proposing.propose(asked, parse_spec("digits", {"seed": index}))
            return _click(blocks.card(await app.cards.card(proposal.id)), "U1")

        bodies = []
        for at in range(0, clicks, AT_ONCE):  # they share commits
            bodies += await asyncio.gather(*(body(index) for index in range(at, min(clicks, at + AT_ONCE))))
    return Place(home=home, environment=environment, port=port, bodies=bodies)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def _process(
    environment: dict[str, str], *arguments: str, log: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process, ended with whatever it started."""
    errors: Any = log.open("ab") if log else asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=environment, cwd=SOURCE, stdout=asyncio.subprocess.PIPE, stderr=errors
    )
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            itself = psutil.Process(process.pid)
            for one in (itself, *itself.children(recursive=True)):
                one.kill()
        await process.wait()


async def _listening(port: int, log: Path) -> None:
    for _ in range(600):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.05)
    raise AssertionError(f"nothing listens: {log.read_text()[-2000:]}")


async def _idle(pid: int) -> None:
    """Until it has done nothing much for two seconds: the agent and MLflow get warm beside, at no click's cost."""
    process = psutil.Process(pid)
    quiet = 0
    for _ in range(120):
        before = sum(process.cpu_times()[:2])
        await asyncio.sleep(0.5)
        quiet = quiet + 1 if sum(process.cpu_times()[:2]) - before < 0.05 else 0
        if quiet == 4:
            return


# -- clicking ------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Figures:
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    rate: float
    refused: int


async def _post(session: aiohttp.ClientSession, url: str, body: bytes) -> tuple[float, int]:
    headers = {"Content-Type": "application/x-www-form-urlencoded", **WORLD.courier.post.sign(body)}
    begun = time.perf_counter()
    try:
        async with session.post(url, data=body, headers=headers) as response:
            await response.read()
            return time.perf_counter() - begun, response.status
    except (aiohttp.ClientError, TimeoutError):
        return time.perf_counter() - begun, 0


async def _clicked(url: str, pid: int, bodies: Sequence[bytes], *, pace: float | None = None) -> Figures:
    """All of them: `AT_ONCE` at once, or at a pace whatever the answers take."""
    took: list[tuple[float, int]] = []
    process = psutil.Process(pid)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
        waiting = iter(bodies)

        async def one_hand() -> None:
            for body in waiting:
                took.append(await _post(session, url, body))

        async def one(at: float, body: bytes) -> None:
            await asyncio.sleep(at - time.perf_counter())
            took.append(await _post(session, url, body))

        before, begun = process.cpu_times(), time.perf_counter()
        if pace is None:
            await asyncio.gather(*(one_hand() for _ in range(AT_ONCE)))
        else:
            await asyncio.gather(*(one(begun + index / pace, body) for index, body in enumerate(bodies)))
        seconds, after = time.perf_counter() - begun, process.cpu_times()
    spent = after.user + after.system - before.user - before.system
    times = sorted(each for each, _ in took)
    return Figures(
        cpu_ms=1000 * spent / len(bodies),
        p50_ms=1000 * statistics.median(times),
        p99_ms=1000 * times[min(len(times) - 1, int(0.99 * len(times)))],
        rate=len(bodies) / seconds,
        refused=sum(status != 200 for _, status in took),
    )


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A burst, and bare Bolt's at the same time."""

    ours: Figures
    bare: Figures

    @property
    def ratio(self) -> float:
        return self.ours.cpu_ms / self.bare.cpu_ms


def _middle(pairs: Sequence[Pair]) -> Pair:
    ratio = statistics.median_low(one.ratio for one in pairs)
    middle = next(one for one in pairs if one.ratio == ratio)
    return replace(middle, ours=replace(middle.ours, refused=sum(one.ours.refused for one in pairs)))


def _row(name: str, one: Figures, bare: Figures, kept: str) -> None:
    kept += f", {one.refused} NOT ACKNOWLEDGED" if one.refused else ""
    print(
        f"{name:48}{one.cpu_ms:8.2f}{bare.cpu_ms:8.2f}{one.cpu_ms / bare.cpu_ms:8.1f}×"
        f"{one.p50_ms:9.1f}{one.p99_ms:9.1f}{one.rate:10.0f}  {kept}",
        flush=True,
    )


Bare = Callable[[float | None], Awaitable[Figures]]  # its clicks, at once or at a pace


@asynccontextmanager
async def _bare_bolt(folder: Path, slack_url: str, clicks: int) -> AsyncIterator[Bare]:
    place = await _place(folder / "bare", slack_url, clicks, needed=1)
    async with _process(place.environment, "-m", "tests.bench.slack", "--bare", str(place.port)) as process:
        await _listening(place.port, folder)
        await _clicked(place.url, process.pid, place.bodies[:WARM])

        async def press(pace: float | None) -> Figures:
            return await _clicked(place.url, process.pid, place.bodies * BARE_FACTOR, pace=pace)

        yield press


async def _clicks(folder: Path, slack_url: str, clicks: int) -> None:
    print(
        f"\nApprove clicks on distinct proposals, the middle of {BURSTS} bursts of {clicks}; CPU ms a click, and bare's"
    )
    print(
        f"{'':48}{'ours':>8}{'bare':>8}{'ratio':>9}{'p50 ms':>9}{'p99 ms':>9}{'clicks/s':>10}  kept (in the database)"
    )
    need = WARM + (BURSTS + PACED_FACTOR) * clicks
    verdicts = []
    async with _bare_bolt(folder, slack_url, clicks) as bare:
        for name, needed, arguments, waits in (
            ("click path, 1st of 2 votes", 2, ("-m", "tests.bench.slack", "--asleep"), False),
            ("click path, vote that queues a job", 1, ("-m", "tests.bench.slack", "--asleep"), False),
            ("whole bot, 1st of 2 votes", 2, ("-m", "bot", "serve"), True),
            ("whole bot, vote that queues a job", 1, ("-m", "bot", "serve"), True),
        ):
            home = folder / name.replace(" ", "-").replace(",", "")
            place = await _place(home, slack_url, need, needed=needed)
            log = home / "bot.log"
            async with _process(place.environment, *arguments, log=log) as process:
                await _listening(place.port, log)
                await _idle(process.pid)
                while waits and place.undelivered():
                    await asyncio.sleep(0.2)
                await _clicked(place.url, process.pid, place.bodies[:WARM])
                pairs = []
                for at in range(WARM, WARM + BURSTS * clicks, clicks):
                    ours = await _clicked(place.url, process.pid, place.bodies[at : at + clicks])
                    pairs.append(Pair(ours=ours, bare=await bare(None)))
                many, first = _middle(pairs), place.count("vote") - WARM
                _row(f"{name}, {AT_ONCE} at once", many.ours, many.bare, f"{first} of {BURSTS * clicks}")
                paced = await _clicked(place.url, process.pid, place.bodies[-PACED_FACTOR * clicks :], pace=PACE)
                second = place.count("vote") - WARM - first
                _row(f"{name}, paced {PACE}/s", paced, await bare(PACE), f"{second} of {PACED_FACTOR * clicks}")
                if waits:
                    await _cards_follow(place, process.pid)
            verdicts.append((name, many.ratio, paced.p99_ms, need - place.count("vote")))
        _row(f"bare Bolt, no-op, {AT_ONCE} at once", *[await bare(None)] * 2, "-")
        _row(f"bare Bolt, no-op, paced {PACE}/s", *[await bare(PACE)] * 2, "-")
    print(f"\n{'goals':48}{'CPU ≤ 4×':>14}{f'p99 < 150 ms at {PACE}/s':>26}{'none lost':>12}")
    for name, ratio, p99, lost in verdicts:
        cells = (f"{ratio:.1f}× {_met(ratio <= GOAL_CPU)}", f"{p99:.0f} ms {_met(p99 < GOAL_P99_MS)}")
        print(f"{name:48}{cells[0]:>14}{cells[1]:>26}{f'{lost} {_met(lost == 0)}':>12}")


async def _cards_follow(place: Place, pid: int) -> None:
    """In a rush of clicks cards wait; what they cost afterwards is part of the whole."""
    process, cards, begun = psutil.Process(pid), place.undelivered(), time.perf_counter()
    before = process.cpu_times()
    while place.undelivered():
        await asyncio.sleep(0.1)
    seconds, after = time.perf_counter() - begun, process.cpu_times()
    spent = 1000 * (after.user + after.system - before.user - before.system)
    print(f"{f'    then {cards} cards follow, in {seconds:.1f} s':48}{spent / max(cards, 1):8.2f}  CPU ms a card")


def _met(yes: bool) -> str:
    return "met" if yes else "MISSED"


# -- hanging turns, and the start ----------------------------------------------------------------------------------


async def _hanging(folder: Path, turns: int) -> None:
    clicks, never = 20, asyncio.Event()
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(OpenAIServer(answer=lambda _: Reply(gate=never, text="late")))
        slack = await stack.enter_async_context(SlackServer(rates=None))
        place = await _place(
            folder / "hanging",
            slack.api_url,
            clicks + 1,
            needed=2,
            OPENAI_API_KEY=KEY,
            OPENAI_BASE_URL=model.url,
            SIGNALBOX_MODEL_TIMEOUT_SECONDS="900",
        )
        log = place.home / "bot.log"
        process = await stack.enter_async_context(_process(place.environment, "-m", "bot", "serve", log=log))
        await _listening(place.port, log)
        slack.deliver_over_http(place.url)
        begun = time.perf_counter()
        asking = slack.user("U3")
        for index in range(turns):
            await asking.mention("C1", f"what do you think of number {index}?")
            await asyncio.sleep(0.01)
        until = time.perf_counter() + 120
        while model.at_once < turns and time.perf_counter() < until:
            await asyncio.sleep(0.1)
        there, seconds = model.at_once, time.perf_counter() - begun
        await _clicked(place.url, process.pid, place.bodies[:1])
        times = []
        for body in place.bodies[1:]:
            times.append(await _clicked(place.url, process.pid, [body]))
            await asyncio.sleep(0.05)
        worst = max(one.p99_ms for one in times) / 1000
        middle = statistics.median(one.p50_ms for one in times) / 1000
        memory = psutil.Process(process.pid).memory_info().rss / 2**20
        kept = place.count("vote")
        never.set()
    print(f"\nAgent turns that hang: {there} of {turns} wait for the model ({seconds:.0f} s to get there)")
    good = worst < GOAL_ACK_S and there == turns and kept == clicks + 1
    print(
        f"  {clicks} clicks meanwhile: median {middle:.3f} s, slowest {worst:.3f} s; goal < {GOAL_ACK_S} s {_met(good)}"
    )
    print(f"  votes kept {kept} of {clicks + 1}; RSS {memory:.0f} MiB")


async def _start(folder: Path, slack_url: str, runs: int) -> None:
    seconds, fresh, warm = [], [], []
    for run in range(runs):
        place = await _place(folder / f"start-{run}", slack_url, 1, needed=2)
        begun = time.perf_counter()
        async with (
            _process(place.environment, "-m", "bot", "serve", log=place.home / "bot.log") as process,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
        ):
            while (await _post(session, place.url, place.bodies[0]))[1] != 200:
                await asyncio.sleep(0.01)
            seconds.append(time.perf_counter() - begun)
            fresh.append(psutil.Process(process.pid).memory_info().rss / 2**20)
            assert place.count("vote") == 1
            await asyncio.sleep(6)
            warm.append(psutil.Process(process.pid).memory_info().rss / 2**20)
    print(f"\nFrom start to the first acknowledged click: {statistics.median(seconds):.2f} s (median of {runs})")
    print(f"  RSS then {statistics.median(fresh):.0f} MiB, with the agent warm {statistics.median(warm):.0f} MiB")


async def _bench(clicks: int, turns: int, runs: int) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        async with _process(dict(os.environ), "-m", "tests.bench.slack", "--fake") as fake:
            assert fake.stdout is not None
            slack_url = f"http://127.0.0.1:{int(await fake.stdout.readline())}/api/"
            if clicks:
                await _clicks(folder, slack_url, clicks)
            if runs:
                await _start(folder, slack_url, runs)
        if turns:
            await _hanging(folder, turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=100, help="a burst; 0 leaves them out")
    parser.add_argument("--turns", type=int, default=500, help="that hang; 0 leaves them out")
    parser.add_argument("--runs", type=int, default=3, help="starts; 0 leaves them out")
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--asleep", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fake", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        asyncio.run(_bare(given.bare))
    elif given.asleep:
        asyncio.run(_asleep())
    elif given.fake:
        asyncio.run(_fake())
    else:
        asyncio.run(_bench(given.clicks, given.turns, given.runs))


if __name__ == "__main__":
    main()
