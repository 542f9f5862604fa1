"""Runs a chat session: the reconciler beside it, lines from a person or a pipe, and an honest end.

From a pipe it reads every line, then waits for the open jobs; its exit status says whether all that it was asked came
to a good end. Leaving never stops a training: it is a process of its own and is found again by the next start.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date

from rich.console import Console

from bot import digests
from bot.bootstrap import App, alone, opened
from bot.console.chat import Chat
from bot.console.notifier import CHANNEL, TEAM, TerminalNotifier
from bot.core.job import Job, JobPhase
from bot.reconciler import Reconciler
from bot.settings import Settings

LINE_LIMIT = 64 * 1024  # bytes of one line; more is no sentence
PLAIN_WIDTH = 110  # columns where there is no terminal
OK, FAILED = 0, 1


class Session:
    """An open chat with everything that it stands on."""

    def __init__(self, app: App, chat: Chat, notifier: TerminalNotifier, reconciler: Reconciler) -> None:
        self.app = app
        self.chat = chat
        self.notifier = notifier
        self._reconciler = reconciler

    async def say(self, line: str) -> None:
        """Handle one line and show everything that it caused at once."""
        await self.chat.handle(line)
        await self._reconciler.deliver()

    async def open_jobs(self) -> list[Job]:
        return [one.job for one in await self.app.store.open_jobs() if one.job.team == TEAM]

    async def wait_for_jobs(self) -> list[Job]:
        """Until no job is open and everybody knows; answers how they ended."""
        waited = list(dict.fromkeys([*self.chat.approved, *[job.proposal_id for job in await self.open_jobs()]]))
        if await self.open_jobs():
            names = ", ".join(job.name for job in await self.open_jobs())
            self.notifier.say(f"Waiting for {names}. Ctrl-C leaves them running.")
        while await self.open_jobs():  # noqa: ASYNC110 - rows are the truth, and they make no event
            await asyncio.sleep(0.2)
        await self._reconciler.deliver()
        ended = [await self.app.store.job(proposal_id) for proposal_id in waited]
        return [job for job in ended if job is not None]

    async def farewell(self) -> None:
        """What goes on without us."""
        jobs = await self.open_jobs()
        running = ", ".join(job.name for job in jobs if job.phase is JobPhase.RUNNING)
        queued = ", ".join(job.name for job in jobs if job.phase is not JobPhase.RUNNING and not job.cancel_by)
        if running:
            self.notifier.say(f"Still running: {running}. Its end is recorded; `python -m bot chat` shows it.")
        if queued:
            self.notifier.say(f"Still queued: {queued}. It starts when the bot runs again: `python -m bot chat`.")


@asynccontextmanager
async def open_session(settings: Settings, *, lines: bool) -> AsyncIterator[Session]:
    """A session whose reconciler runs. With `lines`, progress is printed; else it is there for a status bar."""
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    with alone(settings):
        async with opened(settings) as app, app.assistant() as assistant:
            if settings.sqlite:
                await app.store.write(lambda writing: writing.end_leases())
            notifier = _notifier(app, console, lines=lines)
            chat = Chat(app, assistant, notifier, console)
            reconciler = app.reconciler(notifier)
            clock = digests.DigestClock(app.store, TEAM, CHANNEL, settings.zone, settings.digest_hour)
            beside = [asyncio.create_task(reconciler.run(), name="reconciler")]
            clock.start()
            try:
                await chat.answer_left_over()
                await chat.show_pending()
                beside.append(asyncio.create_task(chat.watch(), name="inbox"))
                yield Session(app, chat, notifier, reconciler)
            finally:
                clock.stop()
                for one in beside:
                    one.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
                await chat.leave()


def _notifier(app: App, console: Console, *, lines: bool) -> TerminalNotifier:
    async def digest(of: date) -> list[str]:
        built = await digests.build(app.store, app.pricing, app.policies, TEAM, CHANNEL, of)
        return digests.lines(built, app.settings.zone)

    return TerminalNotifier(console, app.cards, app.settings.zone, curve=app.curves.of_job, digest=digest, lines=lines)


async def run(settings: Settings, *, wait: bool = True) -> int:
    """The chat on this terminal or pipe. Answers the exit status."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        async with open_session(settings, lines=False) as session:
            return await interactive(session)
    async with open_session(settings, lines=True) as session:
        return await piped(session, wait=wait)


async def piped(session: Session, *, wait: bool) -> int:
    """Lines from standard input, then the open jobs."""
    lines = _read_lines()
    while not session.chat.over:
        line = await lines.get()
        if not line:
            break
        session.notifier.say(f"{session.chat.user}> {line.rstrip()[:2000]}")
        await session.say(line)
    if not wait:
        await session.farewell()
        return FAILED if session.chat.failed else OK
    jobs = await session.wait_for_jobs()
    good = all(job.phase is JobPhase.SUCCEEDED for job in jobs)
    return OK if good and not session.chat.failed else FAILED


def _read_lines() -> asyncio.Queue[str]:
    """Standard input's lines, an empty one at its end. A daemon thread reads, so Ctrl-C need not wait for a line."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        for raw in iter(sys.stdin.buffer.readline, b""):
            loop.call_soon_threadsafe(lines.put_nowait, raw[:LINE_LIMIT].decode("utf-8", "replace") or "\n")
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, name="standard input", daemon=True).start()
    return lines


async def interactive(session: Session) -> int:
    """Prompt, answer, repeat; what happens meanwhile is printed above the prompt."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.patch_stdout import patch_stdout

    from bot.console.completion import CommandCompleter

    session.notifier.say("Signalbox. Say what to train, or /help. Ctrl-D leaves; running jobs go on.")
    prompt: PromptSession[str] = PromptSession(
        history=FileHistory(str(session.app.settings.folder / "history")),
        completer=CommandCompleter(),
        complete_while_typing=True,
        refresh_interval=0.5,
    )
    with patch_stdout(raw=True):
        while not session.chat.over:
            try:
                line = await prompt.prompt_async(
                    f"{session.chat.user}> ",
                    bottom_toolbar=lambda: "\n".join(session.notifier.running.values()) or None,
                )
            except (EOFError, KeyboardInterrupt):
                break
            await session.say(line)
    await session.farewell()
    return OK


def quiet_logging() -> None:
    """Errors go to standard error, a line each; what people should know is said in the chat."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    for name in ("mlflow", "alembic", "apscheduler", "httpx", "openai"):
        logging.getLogger(name).setLevel(logging.ERROR)
