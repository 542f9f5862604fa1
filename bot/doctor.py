"""`python -m bot doctor`: checks each setting and connection, and says what to do about what is wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from bot.bootstrap import App, load_rates, opened
from bot.core.errors import Misconfigured, SignalboxError
from bot.policies import read_policy
from bot.settings import Settings
from bot.store.audit import verify
from tools.engines.base import EngineRefused, EngineUnavailable
from tools.spec import DigitsSpec
from tools.tracking import Tracking

CHECK_SECONDS = 20
FREE_GIB = 2  # below it checkpoints and artifacts may not fit


class Mark(StrEnum):
    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked. `say` is what a person should know, with what to do if it is wrong."""

    what: str
    mark: Mark
    say: str


async def examine(settings: Settings) -> list[Finding]:
    """Every check, in the order in which they build on each other. Changes nothing but an absent database."""
    findings = [await _check("policy", lambda: _policy(settings)), await _check("rates", lambda: _rates(settings))]
    findings += [_home(settings), _trainers(settings)]
    if any(finding.mark is Mark.WRONG for finding in findings[:3]):
        return findings
    try:
        async with asyncio.timeout(CHECK_SECONDS), opened(settings) as app:
            findings.append(_good("database", app.store.database.shown))
            findings.append(await _check("audit", lambda: _audit(app)))
            findings.append(await _check("MLflow", lambda: _mlflow(app.tracking)))
            findings.append(await _check("engine", lambda: _engine(app)))
    except (SignalboxError, TimeoutError) as error:
        findings.append(_wrong("database", str(error) or f"no answer within {CHECK_SECONDS} s"))
    findings.append(await _check("language model", lambda: _model(settings)))
    findings += await _slack(settings)
    return findings


async def _check(what: str, check: Callable[[], Awaitable[Finding]]) -> Finding:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except SignalboxError as error:
        return _wrong(what, str(error))
    except TimeoutError:
        return _wrong(what, f"No answer within {CHECK_SECONDS} s.")


async def _policy(settings: Settings) -> Finding:
    policy = read_policy(settings.policy_file)
    if not policy.approvers and not policy.approver_groups:
        raise Misconfigured(f"{settings.policy_file} names no approvers, so nothing can ever run. Add some.")
    return _good("policy", f"{settings.policy_file}: approvers {', '.join(sorted(policy.approvers))}")


async def _rates(settings: Settings) -> Finding:
    newest = load_rates(settings.rates_file).versions[-1]
    return _good("rates", f"{settings.rates_file}: newest version {newest.version}")


def _home(settings: Settings) -> Finding:
    folder = settings.folder
    there = folder if folder.exists() else folder.parent
    if not os.access(there, os.W_OK):
        return _wrong("home", f"{there} cannot be written. Set SIGNALBOX_HOME to a folder that can.")
    free = shutil.disk_usage(there).free / 2**30
    if free < FREE_GIB:
        return _wrong("home", f"Only {free:.1f} GiB free under {folder}. Free some, or set SIGNALBOX_HOME elsewhere.")
    return _good("home", f"{folder}, {free:.0f} GiB free")


def _trainers(settings: Settings) -> Finding:
    python = settings.trainer_python.expanduser().absolute()
    if not os.access(python, os.X_OK):
        return _wrong("trainers", f"There is no {python}. Run `make setup`, or set SIGNALBOX_TRAINER_PYTHON.")
    mnist = settings.data_folder / "MNIST" / "raw"
    data = f"MNIST in {mnist}" if mnist.is_dir() else f"no MNIST in {mnist} (digits needs none)"
    return _good("trainers", f"{python}; {data}")


async def _audit(app: App) -> Finding:
    report = await verify(app.store)
    if not report.whole:
        first = report.findings[0]
        return _wrong("audit", f"{first.where}: {first.what}. See `python -m bot audit verify`.")
    return _good("audit", f"{report.events} events, the chain is whole")


async def _mlflow(tracking: Tracking) -> Finding:
    """A server is asked by its own protocol; importing MLflow's client for it would take longer than all the rest."""
    if not tracking.uri.startswith("http"):
        return _good("MLflow", f"embedded: {tracking.shown}")
    import httpx

    try:
        async with httpx.AsyncClient(timeout=10) as client:
            asked = f"{tracking.uri.rstrip('/')}/api/2.0/mlflow/experiments/search"
            answer = await client.get(asked, params={"max_results": 1})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _wrong(
            "MLflow", f"{tracking.shown} does not answer ({type(error).__name__}). Start it, or check the URI."
        )
    if answer.status_code >= 400:
        return _wrong("MLflow", f"{tracking.shown} answers {answer.status_code}. Check MLFLOW_TRACKING_URI.")
    return _good("MLflow", tracking.shown)


async def _engine(app: App) -> Finding:
    try:
        if app.engine.name != "local":  # the trainers have a line of their own
            await app.engine.preflight(DigitsSpec())
        return _good("engine", await app.engine.offers())
    except (EngineRefused, EngineUnavailable) as error:
        return _wrong("engine", str(error))


async def _model(settings: Settings) -> Finding:
    if settings.openai_api_key is None:
        say = "No OPENAI_API_KEY: the built-in planner answers; it knows the commands' plain phrases only."
        return Finding(what="language model", mark=Mark.NOTE, say=say)
    import httpx

    base = (settings.openai_base_url or "https://api.openai.com/v1").rstrip("/")
    key = settings.openai_api_key.get_secret_value()
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            answer = await client.get(f"{base}/models", headers={"Authorization": f"Bearer {key}"})
    except httpx.HTTPError as error:
        return _wrong("language model", f"{base} does not answer ({type(error).__name__}). Check OPENAI_BASE_URL.")
    if answer.status_code in (401, 403):
        return _wrong("language model", f"{base} refuses the key ({answer.status_code}). Check OPENAI_API_KEY.")
    if answer.status_code >= 400:
        return _wrong("language model", f"{base}/models answers {answer.status_code}. Check OPENAI_BASE_URL.")
    return _good("language model", f"{settings.openai_model} at {base}")


async def _slack(settings: Settings) -> list[Finding]:
    if settings.slack_bot_token is None:
        return [Finding(what="Slack", mark=Mark.NOTE, say="No SLACK_BOT_TOKEN: the terminal chat is the surface.")]
    from bot.slack.checks import problems

    try:
        async with asyncio.timeout(CHECK_SECONDS):
            found = [_wrong("Slack", problem) async for problem in problems(settings)]
    except (OSError, TimeoutError) as error:
        found = [_wrong("Slack", f"{settings.slack_api_url} does not answer ({type(error).__name__}).")]
    return found or [_good("Slack", f"{settings.slack_api_url}, {settings.slack_mode} mode")]


def _good(what: str, say: str) -> Finding:
    return Finding(what=what, mark=Mark.OK, say=say)


def _wrong(what: str, say: str) -> Finding:
    return Finding(what=what, mark=Mark.WRONG, say=say)
