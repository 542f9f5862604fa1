"""The local engine with real processes and real kills; only the trainer is a stand-in, written by each test.

What must hold: one start however often it is asked for and whoever dies meanwhile, an end that is always told, and
nothing of the bot's secrets in a trainer's hands.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tools.engines.base import (
    EngineRefused,
    EngineUnavailable,
    NameTaken,
    Observation,
    Standing,
    StopReason,
    Submission,
)
from tools.engines.local import SOURCE, TAIL_BYTES, LocalEngine
from tools.engines.supervisor import birth
from tools.progress import ExitCode
from tools.spec import DigitsSpec, parse_spec

NAME = "digits-1-abc"
PRELUDE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
DATA = Path(sys.argv[sys.argv.index("--data-dir") + 1])
OUTPUT = Path(sys.argv[sys.argv.index("--output-dir") + 1])
def say(event, **more):
    print("SIGNALBOX " + json.dumps({"event": event, **more}), flush=True)
def keep(name, value):
    (OUTPUT / f".{name}").write_text(json.dumps(value)); (OUTPUT / f".{name}").replace(OUTPUT / name)
with (DATA / "starts").open("a") as ledger:
    ledger.write(f"{os.getpid()}\\n")
"""
QUICK = """
say("started", steps=2, epochs=1)
say("epoch", epoch=1, epochs=1, metrics={"val_accuracy": 0.9})
print("a line for people")
say("result", metrics={"val_accuracy": 0.9})
"""
HANG = 'keep("pid", os.getpid())\ntime.sleep(60)'
# Starts a training in a process of its own, as the bot does; a caller that dies right after the spawn if it is told to.
CALLER = """
import asyncio, os, signal, subprocess, sys
from tests.integration.test_local_engine import Yard
if sys.argv[2] == "die":
    class Popen(subprocess.Popen):
        def __init__(self, *a, **k):
            super().__init__(*a, **k)
            os.kill(os.getpid(), signal.SIGKILL)
    subprocess.Popen = Popen
async def main():
    yard = Yard.at(sys.argv[1])
    await yard.engine.release("digits-1-abc", await yard.create(max_runtime_seconds=1))
asyncio.run(main())
"""


@dataclass
class Yard:
    """A home with a stand-in for `trainers.mnist_cnn`."""

    root: Path
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, root: str) -> Yard:
        return cls(Path(root))

    def __post_init__(self) -> None:
        self.engine = self.another()

    def another(self, **options: Any) -> LocalEngine:
        """An engine that remembers nothing, as after a restart."""
        given = {"python": sys.executable, "grace_seconds": 1, **self.options, **options}
        return LocalEngine(home=self.root / "home", source=self.root / "source", data_dir=self.root, **given)

    def trainer(self, program: str) -> None:
        module = self.root / "source" / "trainers" / "mnist_cnn.py"
        module.parent.mkdir(parents=True)
        (module.parent / "__init__.py").touch()  # else the real trainers come first
        module.write_text(PRELUDE + program)

    async def create(self, name: str = NAME, digest: str = "d1", **manifest: Any) -> str:
        return await self.engine.create(
            Submission(
                name=name,
                proposal_id="p1",
                digest=digest,
                manifest=self.engine.render(DigitsSpec()) | manifest,
                run_id="r1",
                tracking_uri="sqlite:////tmp/none.db",
            )
        )

    async def start(self, name: str = NAME, **manifest: Any) -> str:
        uid = await self.create(name, **manifest)
        await self.engine.release(name, uid)
        return uid

    async def until(self, standing: Standing, name: str = NAME, seconds: float = 15) -> Observation:
        deadline = time.monotonic() + seconds
        while (seen := await self.engine.observe(name)).standing is not standing:
            assert time.monotonic() < deadline, f"still {seen}"
            await asyncio.sleep(0.01)
        return seen

    async def kept(self, what: str, name: str = NAME) -> Any:
        """What the trainer wrote down, as soon as it has."""
        path = self.job(name) / "output" / what
        deadline = time.monotonic() + 15
        while not path.exists():
            assert time.monotonic() < deadline, f"the trainer never kept {what}"
            await asyncio.sleep(0.01)
        return json.loads(path.read_text())

    def job(self, name: str = NAME) -> Path:
        return self.root / "home" / "jobs" / name

    def claim(self, name: str = NAME) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.job(name) / "started.json").read_text())
        return found

    @property
    def starts(self) -> int:
        ledger = self.root / "starts"
        return len(ledger.read_text().splitlines()) if ledger.exists() else 0


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    for claimed in (tmp_path / "home" / "jobs").glob("*/started.json"):
        claim = json.loads(claimed.read_text())
        if "pid" in claim and claim["pid"] != os.getpid() and birth(claim["pid"]) == claim["birth"]:
            os.kill(claim["pid"], signal.SIGKILL)


async def gone(pid: int, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while birth(pid) is not None:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


# -- one start ----------------------------------------------------------------------------------------------------


async def test_a_whole_life(yard: Yard) -> None:
    yard.trainer(QUICK)
    assert (await yard.engine.observe(NAME)).standing is Standing.ABSENT
    uid = await yard.create()
    suspended = await yard.engine.observe(NAME)
    assert (suspended.standing, suspended.uid, suspended.digest) == (Standing.SUSPENDED, uid, "d1")
    assert not suspended.attempts and yard.starts == 0
    before = datetime.now(UTC)
    await yard.engine.release(NAME, uid)
    ended = await yard.until(Standing.ENDED)
    assert (ended.exit_code, ended.stopped, ended.progress.result) == (0, None, {"val_accuracy": 0.9})
    assert ended.progress.epoch_metrics == ({"epoch": 1.0, "val_accuracy": 0.9},)
    (attempt,) = ended.attempts
    assert attempt.ended_at and before <= attempt.started_at <= attempt.ended_at <= datetime.now(UTC)
    assert not attempt.estimated
    assert await yard.engine.logs(NAME, 10) == ["a line for people"]
    assert await yard.another().observe(NAME) == ended, "a restart sees the same"


async def test_releases_at_once_and_again_start_one(yard: Yard) -> None:
    yard.trainer(QUICK)
    uid = await yard.create()
    await asyncio.gather(*(yard.another().release(NAME, uid) for _ in range(6)))
    await yard.until(Standing.ENDED)
    await yard.engine.release(NAME, uid)
    await asyncio.sleep(0.3)
    assert yard.starts == 1


async def test_processes_that_release_at_once_start_one(yard: Yard) -> None:
    yard.trainer(QUICK)
    callers = [
        subprocess.Popen([sys.executable, "-c", CALLER, yard.root, "live"], cwd=SOURCE, start_new_session=True)
        for _ in range(3)
    ]
    assert [caller.wait(30) for caller in callers] == [0, 0, 0]
    assert (await yard.until(Standing.ENDED)).exit_code == 0
    assert yard.starts == 1


async def test_a_caller_killed_after_the_spawn_starts_one(yard: Yard) -> None:
    yard.trainer(QUICK)
    caller = subprocess.run([sys.executable, "-c", CALLER, yard.root, "die"], cwd=SOURCE, check=False, timeout=30)
    assert caller.returncode == -signal.SIGKILL
    uid = await yard.create(max_runtime_seconds=1)  # the same job: whoever comes back finds its uid
    await yard.engine.release(NAME, uid)
    assert (await yard.until(Standing.ENDED)).exit_code == 0
    assert yard.starts == 1


async def test_create_is_idempotent_and_leaves_other_jobs_alone(yard: Yard) -> None:
    yard.trainer(QUICK)
    made = await asyncio.gather(*(yard.create() for _ in range(6)))
    assert len(set(made)) == 1
    assert list(yard.job().parent.iterdir()) == [yard.job()], "no half-made folders stay"
    assert yard.job().stat().st_mode & 0o077 == 0, "the tracking address may hold a password"
    with pytest.raises(NameTaken, match="left alone"):
        await yard.create(digest="d2")
    (yard.job("squat") / "theirs").mkdir(parents=True)
    with pytest.raises(NameTaken, match="left alone"):
        await yard.create("squat")
    with pytest.raises(EngineRefused, match="not started"):
        await yard.engine.release(NAME, "another-uid")
    with pytest.raises(EngineRefused, match="not started"):
        await yard.engine.release("nobody", made[0])
    with pytest.raises(EngineRefused, match="no job's name"):
        await yard.engine.observe("../../etc")
    assert yard.starts == 0


async def test_what_runs_is_the_manifest_not_the_settings_of_the_day(yard: Yard) -> None:
    yard.trainer('keep("seen", [sys.argv[1:], os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"]])')
    manifest = yard.engine.render(DigitsSpec(lr=0.25))
    assert manifest == json.loads(json.dumps(manifest)) == yard.engine.render(DigitsSpec(lr=0.25))
    assert manifest["parameters"]["lr"] == 0.25 and manifest["max_runtime_seconds"] == 900
    assert manifest["resources"] == yard.engine.resources(DigitsSpec()).document()
    submission = Submission(
        name=NAME, proposal_id="p1", digest="d1", manifest=manifest, run_id="r1", tracking_uri="sqlite:////tmp/none.db"
    )
    yard.engine = yard.another(python="/nowhere/python", cpu_cores=Decimal(64), grace_seconds=99)
    await yard.engine.release(NAME, await yard.engine.create(submission))
    await yard.until(Standing.ENDED)
    arguments, threads, devices = await yard.kept("seen")
    assert arguments[arguments.index("--lr") + 1] == "0.25"
    assert (threads, devices) == (manifest["env"]["OMP_NUM_THREADS"], "")


# -- ends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [ExitCode.FAILURE, ExitCode.BAD_INPUT, ExitCode.OUT_OF_MEMORY])
async def test_a_trainers_own_exit_code_is_told(yard: Yard, code: ExitCode) -> None:
    yard.trainer(f'say("error", message="The data is missing: put it there.")\nsys.exit({int(code)})')
    await yard.start()
    ended = await yard.until(Standing.ENDED)
    assert (ended.exit_code, ended.stopped) == (code, None)
    assert ended.progress.error == "The data is missing: put it there."


async def test_a_killed_supervisor_takes_its_trainer_along(yard: Yard) -> None:
    yard.trainer('keep("worker", subprocess.Popen(["sleep", "60"]).pid)\n' + HANG)
    await yard.start()
    trainer, worker = (await yard.kept("../trainer.json"))["pid"], await yard.kept("worker")
    assert (await yard.engine.observe(NAME)).standing is Standing.RUNNING
    os.kill(yard.claim()["pid"], signal.SIGKILL)
    ended = await yard.until(Standing.ENDED)
    assert await gone(trainer) and await gone(worker)
    assert (ended.exit_code, ended.stopped) == (None, None)
    (attempt,) = ended.attempts
    assert attempt.estimated and attempt.ended_at and attempt.ended_at >= attempt.started_at
    await yard.engine.release(NAME, ended.uid or "")
    await asyncio.sleep(0.2)
    assert yard.starts == 1, "a training that died is not started again"


async def test_no_end_is_told_while_the_trainer_lives(yard: Yard) -> None:
    """Whoever kills all that keeps it: what still runs holds its slot and is shown to run."""
    yard.trainer("import ctypes\nctypes.CDLL(None).prctl(1, 0)\n" + HANG)  # no more PR_SET_PDEATHSIG
    await yard.start()
    trainer = await yard.kept("pid")
    assert (await yard.kept("../trainer.json"))["pid"] == trainer
    supervisor = psutil.Process(yard.claim()["pid"])
    (guard,) = [child for child in supervisor.children() if child.pid != trainer]
    guard.kill()
    supervisor.kill()
    assert await gone(supervisor.pid)
    assert (await yard.another().observe(NAME)).standing is Standing.RUNNING
    assert await yard.another(max_jobs=1).free_slots() == 0
    os.kill(trainer, signal.SIGKILL)
    await yard.until(Standing.ENDED)


async def test_a_killed_trainer_is_told_by_its_signal(yard: Yard) -> None:
    yard.trainer('subprocess.Popen(["sleep", "60"])\n' + HANG)
    await yard.start()
    trainer = await yard.kept("pid")
    (straggler,) = psutil.Process(trainer).children()
    os.kill(trainer, signal.SIGKILL)
    ended = await yard.until(Standing.ENDED)
    assert (ended.exit_code, ended.stopped) == (-signal.SIGKILL, None)
    assert await gone(straggler.pid), "what a trainer leaves behind holds the machine"


async def test_what_a_trainer_leaves_behind_ends_with_it(yard: Yard) -> None:
    yard.trainer(
        """
grandchild = (
    "import subprocess as s; print(s.Popen(['sleep', '60'], stdout=s.DEVNULL, start_new_session=True).pid)"
)
daemon = int(subprocess.run([sys.executable, "-c", grandchild], stdout=subprocess.PIPE).stdout)  # an orphan by now
own = subprocess.Popen(["sleep", "60"], start_new_session=True)
keep("left", [subprocess.Popen(["sleep", "60"]).pid, own.pid, daemon])
"""
    )
    await yard.start()
    left = await yard.kept("left")
    assert (await yard.until(Standing.ENDED)).exit_code == 0
    alive = [name for name, pid in zip(("child", "own session", "daemon"), left, strict=True) if birth(pid)]
    for pid in left:
        if birth(pid):
            os.kill(pid, signal.SIGKILL)
    assert alive == [], "an end is told when nothing runs any more"


async def test_a_cancel_asks_first(yard: Yard) -> None:
    yard.trainer(
        "signal.signal(signal.SIGTERM, lambda *_: (say('note', message='checkpoint written'), sys.exit(4)))\n" + HANG
    )
    uid = await yard.start(grace_seconds=30)
    await yard.kept("pid")
    await yard.engine.cancel(NAME, "another-uid")
    await asyncio.sleep(0.2)
    assert (await yard.engine.observe(NAME)).standing is Standing.RUNNING
    began = time.monotonic()
    await yard.engine.cancel(NAME, uid)
    await yard.engine.cancel(NAME, uid)
    ended = await yard.until(Standing.ENDED)
    assert time.monotonic() - began < 20  # well before the grace time is over
    assert (ended.exit_code, ended.stopped) == (ExitCode.INTERRUPTED, StopReason.CANCELLED)
    assert ended.progress.notes == ("checkpoint written",)
    await yard.engine.cancel(NAME, uid)
    assert await yard.engine.observe(NAME) == ended


@pytest.mark.parametrize("by", ["cancel", "signal"])
async def test_a_trainer_that_will_not_stop_is_killed_after_the_grace_time(yard: Yard, by: str) -> None:
    yard.trainer("signal.signal(signal.SIGTERM, lambda *_: say('note', message='no'))\n" + HANG)
    uid = await yard.start(grace_seconds=1)
    await yard.kept("pid")
    began = time.monotonic()
    if by == "cancel":
        await yard.engine.cancel(NAME, uid)
    else:
        os.kill(yard.claim()["pid"], signal.SIGTERM)  # as when the machine shuts down: the same as a cancel
    ended = await yard.until(Standing.ENDED)
    assert 0.9 < time.monotonic() - began < 20
    assert (ended.exit_code, ended.stopped) == (-signal.SIGKILL, StopReason.CANCELLED)
    assert ended.progress.notes == ("no",)


async def test_the_deadline_holds_without_a_bot(yard: Yard) -> None:
    yard.trainer(HANG)
    caller = subprocess.Popen([sys.executable, "-c", CALLER, yard.root, "live"], cwd=SOURCE, start_new_session=True)
    assert caller.wait(30) == 0
    with pytest.raises(ProcessLookupError):  # a Ctrl-C in the bot's terminal is not for trainings
        os.killpg(caller.pid, 0)
    deadline = time.monotonic() + 10
    while not (yard.job() / "ended.json").exists():  # nobody asks the engine meanwhile
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ended = await yard.engine.observe(NAME)
    assert (ended.exit_code, ended.stopped) == (-signal.SIGTERM, StopReason.DEADLINE)
    assert ended.attempts[0].ended_at
    held = ended.attempts[0].ended_at - ended.attempts[0].started_at
    assert timedelta(seconds=0.9) <= held <= timedelta(seconds=1.2), "the time for a checkpoint is within the approved"


async def test_the_ceiling_holds_against_a_trainer_that_ignores_its_end(yard: Yard) -> None:
    yard.trainer("signal.signal(signal.SIGTERM, lambda *_: say('note', message='no'))\n" + HANG)
    await yard.start(max_runtime_seconds=2, grace_seconds=30)
    ended = await yard.until(Standing.ENDED)
    assert (ended.exit_code, ended.stopped) == (-signal.SIGKILL, StopReason.DEADLINE)
    assert ended.attempts[0].ended_at
    held = ended.attempts[0].ended_at - ended.attempts[0].started_at
    assert held <= timedelta(seconds=2.3), "what was approved is all that it may take"


async def test_a_job_whose_folder_is_taken_away_does_not_go_on_unaccounted(yard: Yard) -> None:
    yard.trainer(HANG)
    await yard.start()
    claim = yard.claim()
    shutil.rmtree(yard.job().rename(yard.root / "taken"), ignore_errors=True)  # one name less at once: it is written to
    deadline = time.monotonic() + 10
    while psutil.pid_exists(claim["pid"]) and psutil.Process(claim["pid"]).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the supervisor goes on"
        time.sleep(0.05)


@pytest.mark.parametrize("garbage", ["garbage", "{}"])
async def test_a_job_whose_record_is_spoilt_can_be_cancelled_and_ends(yard: Yard, garbage: str) -> None:
    yard.trainer(HANG)
    uid = await yard.start()
    (yard.job() / "job.json").write_text(garbage, encoding="utf-8")
    with pytest.raises(EngineUnavailable, match="mend"):
        await yard.engine.observe(NAME)
    if garbage == "garbage":
        await yard.engine.cancel(NAME, uid)
    else:
        os.kill(yard.claim()["pid"], signal.SIGTERM)
    deadline = time.monotonic() + 10
    while not (yard.job() / "ended.json").exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    assert (await yard.engine.observe(NAME)).standing is Standing.ABSENT


async def test_a_cancelled_suspended_job_never_starts(yard: Yard) -> None:
    yard.trainer(QUICK)
    uid = await yard.create()
    await yard.engine.cancel(NAME, uid)
    await yard.engine.release(NAME, uid)
    await asyncio.sleep(0.3)
    ended = await yard.engine.observe(NAME)
    assert (ended.standing, ended.stopped, ended.attempts) == (Standing.ENDED, StopReason.CANCELLED, ())
    assert yard.starts == 0 and await yard.engine.free_slots() == 1


async def test_cancel_and_release_at_once_agree(yard: Yard) -> None:
    """The cancel comes sooner or later around the moment of the claim: it is never lost, nor is a start."""
    yard.trainer(HANG)

    async def once(number: int) -> bool:
        uid = await yard.create(name := f"digits-{number}")

        async def cancel() -> None:
            await asyncio.sleep(number * 0.012)
            await yard.another().cancel(name, uid)

        await asyncio.gather(yard.engine.release(name, uid), cancel())
        ended = await yard.until(Standing.ENDED, name)
        assert ended.stopped is StopReason.CANCELLED
        assert bool(ended.attempts) == ("pid" in yard.claim(name)) == (yard.job(name) / "ended.json").exists()
        await yard.engine.release(name, uid)
        assert await yard.engine.observe(name) == ended
        return bool(ended.attempts)

    started = [await once(number) for number in range(24)]
    assert True in started and False in started, "both orders must come up, else this proves nothing"
    assert yard.starts <= started.count(True)


async def test_a_trainer_that_cannot_start_says_why(yard: Yard) -> None:
    yard.options["python"] = str(yard.root / "no-python")
    yard.engine = yard.another()
    (yard.root / "source").mkdir()
    await yard.start()
    ended = await yard.until(Standing.ENDED)
    assert ended.exit_code == ExitCode.BAD_INPUT
    assert ended.progress.error and "no-python" in ended.progress.error and "make setup" in ended.progress.error


async def test_a_supervisor_that_fails_leaves_an_end(yard: Yard) -> None:
    await yard.start(max_runtime_seconds="soon")
    ended = await yard.until(Standing.ENDED)
    assert ended.exit_code == ExitCode.FAILURE and "supervisor.log" in (ended.progress.error or "")


async def test_a_pid_of_another_birth_is_somebody_else(yard: Yard) -> None:
    uid = await yard.create()
    claim = {"pid": os.getpid(), "birth": birth(os.getpid()), "started_at": datetime.now(UTC).isoformat()}
    path = yard.job() / "started.json"
    path.write_text(json.dumps(claim))
    assert (await yard.engine.observe(NAME)).standing is Standing.RUNNING
    assert await yard.engine.free_slots() == 0
    path.write_text(json.dumps(claim | {"birth": "an earlier boot/17"}))
    seen = await yard.engine.observe(NAME)
    assert (seen.standing, seen.exit_code, seen.attempts[0].estimated) == (Standing.ENDED, None, True)
    assert await yard.engine.free_slots() == 1
    log = yard.job() / "log.txt"
    log.touch()
    later = datetime.now(UTC) + timedelta(minutes=5)
    os.utime(log, (later.timestamp(), later.timestamp()))
    assert (await yard.engine.observe(NAME)).attempts[0].ended_at == later, "the log's last sign of life is its end"
    await yard.engine.release(NAME, uid)
    assert json.loads(path.read_text())["pid"] == os.getpid(), "never claimed again"


async def test_slots_count_what_is_alive(yard: Yard) -> None:
    yard.options["max_jobs"] = 2
    yard.engine = yard.another()
    yard.trainer(HANG)
    assert await yard.engine.free_slots() == 2
    uid = await yard.start("one")
    await yard.create("waiting")
    assert await yard.engine.free_slots() == 1
    second = await yard.start("two")
    assert await yard.engine.free_slots() == 0
    assert await yard.another(max_jobs=1).free_slots() == 0
    await yard.engine.cancel("one", uid)
    await yard.until(Standing.ENDED, "one")
    assert await yard.engine.free_slots() == 1
    await yard.engine.cancel("two", second)
    await yard.until(Standing.ENDED, "two")


# -- what passes between ------------------------------------------------------------------------------------------


async def test_no_secret_of_the_bot_reaches_trainer_or_supervisor(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    canaries = ("OPENAI_API_KEY", "SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY")
    for name in canaries:
        monkeypatch.setenv(name, "canary-7f3a")
    monkeypatch.setenv("HF_HOME", "/models")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    yard.trainer(
        "parent = Path(f'/proc/{os.getppid()}/environ').read_bytes().decode()\n"
        'keep("environment", [dict(os.environ), parent])'
    )
    await yard.start()
    trainer, supervisor = await yard.kept("environment")
    assert not set(canaries) & set(trainer) and "canary-7f3a" not in json.dumps([trainer, supervisor])
    assert (trainer["MLFLOW_RUN_ID"], trainer["MLFLOW_TRACKING_URI"]) == ("r1", "sqlite:////tmp/none.db")
    assert (trainer["HF_HOME"], trainer["https_proxy"]) == ("/models", "http://proxy:3128")
    assert trainer["PYTHONUNBUFFERED"] == "1" and trainer["PATH"] == os.environ["PATH"]
    assert "canary-7f3a" not in "".join(path.read_text() for path in yard.job().glob("*.*"))


async def test_a_supervisor_filters_whatever_environment_it_has_itself(yard: Yard) -> None:
    yard.trainer('keep("environment", dict(os.environ))')
    await yard.create()
    subprocess.run(
        [sys.executable, "-m", "tools.engines.supervisor", yard.job()],
        env=dict(os.environ) | {"OPENAI_API_KEY": "canary-7f3a"},
        cwd=SOURCE,
        check=True,
        timeout=30,
    )
    assert "canary-7f3a" not in json.dumps(await yard.kept("environment"))


async def test_a_log_of_garbage_is_read_past(yard: Yard) -> None:
    yard.trainer(
        """
out = sys.stdout.buffer
out.write(bytes(range(256)) * 40 + b"\\nSIGNALBOX {broken\\nSIGNALBOX [1]\\nSIGNALBOX " + b"\\xff\\xfe\\n"); out.flush()
say("epoch", epoch=1, epochs=2, metrics={"val_loss": 0.5})
out.write(b"SIGNALBOX " + b"x" * 10_000_000 + b"\\n"); out.flush()
say("epoch", epoch=2, epochs=2, metrics={"val_loss": 0.25})
out.write(b"y" * 10_000_000); out.flush()
"""
    )
    await yard.start()
    ended = await yard.until(Standing.ENDED)
    assert [row["val_loss"] for row in ended.progress.epoch_metrics] == [0.5, 0.25]
    again = yard.another()
    tracemalloc.start()
    try:
        assert (await again.observe(NAME)).progress == ended.progress
        assert all(len(line) <= 300 for line in await again.logs(NAME, 50))
        assert tracemalloc.get_traced_memory()[0] < 2**20, "a line without end is not kept"
    finally:
        tracemalloc.stop()


async def test_a_line_without_end_takes_no_memory(yard: Yard) -> None:
    await yard.create()
    claim = {"pid": 1, "birth": "none", "started_at": datetime.now(UTC).isoformat()}
    (yard.job() / "started.json").write_text(json.dumps(claim))
    with (yard.job() / "log.txt").open("wb") as log:
        log.truncate(200 * 2**20)  # zeros, and no room on the disk
        log.seek(0, os.SEEK_END)
        log.write(b'\nSIGNALBOX {"event": "progress", "step": 7, "steps": 9}\n')
    tracemalloc.start()
    try:
        assert (await yard.engine.observe(NAME)).progress.step == 7
        assert len(await yard.engine.logs(NAME, 50)) <= 1
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


async def test_reading_goes_on_across_restarts(yard: Yard) -> None:
    await yard.create()
    claim = {"pid": os.getpid(), "birth": birth(os.getpid()), "started_at": datetime.now(UTC).isoformat()}
    (yard.job() / "started.json").write_text(json.dumps(claim))
    line = 'SIGNALBOX {"event": "epoch", "epoch": %d, "epochs": 9, "metrics": {"val_loss": 0.5}}\n'
    old = yard.engine
    for number in range(1, 6):
        half = len(line) // 2
        for piece in ((line % number)[:half], (line % number)[half:]):
            with (yard.job() / "log.txt").open("a") as log:
                log.write(piece)
            seen = await old.observe(NAME)
            assert await yard.another().observe(NAME) == seen, "one that was away meanwhile sees the same"
        assert [row["epoch"] for row in seen.progress.epoch_metrics] == [float(one) for one in range(1, number + 1)]


async def test_lines_are_counted_once_whoever_looks_and_however_they_arrive(yard: Yard) -> None:
    await yard.create()
    path = yard.job() / "started.json"
    path.write_text(json.dumps({"pid": 1, "birth": "none", "started_at": datetime.now(UTC).isoformat()}))
    line = 'SIGNALBOX {"event": "epoch", "epoch": 1, "epochs": 1, "metrics": {"val_loss": 0.5}}\n'
    log = yard.job() / "log.txt"
    log.write_text(line * 2000)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns at every line
    try:
        seen = await asyncio.gather(*(yard.engine.observe(NAME) for _ in range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert {len(one.progress.epoch_metrics) for one in seen} == {2000}
    for piece in (line[:3], line[3:40], line[40:] + line[:9], line[9:]):
        with log.open("a") as file:
            file.write(piece)
        last = await yard.engine.observe(NAME)
    assert len(last.progress.epoch_metrics) == 2002


async def test_logs_are_for_people(yard: Yard) -> None:
    await yard.create()
    assert await yard.engine.logs(NAME, 5) == [] == await yard.engine.logs("nobody", 5)
    hidden = "\u202e\u200b"
    told = (
        "first\n"
        "\x1b[31mred\x1b[0m \x1b]0;title\x07and \x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\\n"
        f"a\tb\x00\x07c{hidden}\n" + "10%\r50%\r100%\r\n" + "w" * 1000 + "\n\n"
    )
    progress = 'SIGNALBOX {"event": "progress", "step": 1}\n' * 4000
    (yard.job() / "log.txt").write_text(told + progress + "last\nSIGNALBOX {")
    lines = await yard.engine.logs(NAME, 6)
    assert lines == ["first", "red and link", "a   bc", "100%", "w" * 300, "last"]
    assert await yard.engine.logs(NAME, 1) == ["last"] and await yard.engine.logs(NAME, 0) == []
    (yard.job() / "log.txt").write_bytes(b"early\nSIGNALBOX " + b"q" * TAIL_BYTES + b"\none\ntwo\n")
    assert await yard.engine.logs(NAME, 3) == ["early", "one", "two"], (
        "a machine's line cut in two is still no person's"
    )


async def test_preflight_refuses_with_the_next_step(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    await yard.engine.preflight(DigitsSpec())
    with pytest.raises(EngineRefused, match=r"This machine has no GPU.*no gpu"):
        await yard.engine.preflight(DigitsSpec(gpus=1))
    await yard.another(gpus=1).preflight(DigitsSpec(gpus=1))
    with pytest.raises(EngineRefused, match="make setup"):
        await yard.another(python=str(yard.root / "none")).preflight(DigitsSpec())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100 * 2**20))
    with pytest.raises(EngineRefused, match="nearly full"):
        await yard.engine.preflight(DigitsSpec())


async def test_errors_of_the_disk_are_sentences_and_pass(yard: Yard) -> None:
    yard.root.joinpath("home").write_text("in the way")
    with pytest.raises(EngineUnavailable, match=r"cannot use .*home") as caught:
        await yard.create()
    assert isinstance(caught.value.__cause__, OSError)
    yard.root.joinpath("home").unlink()
    await yard.create()
    (yard.job() / "job.json").write_text("{")
    with pytest.raises(EngineUnavailable, match="cannot be read"):
        await yard.engine.observe(NAME)


async def test_a_log_that_cannot_be_opened_is_an_end_too(yard: Yard) -> None:
    uid = await yard.create()
    (yard.job() / "log.txt").mkdir()
    await yard.engine.release(NAME, uid)
    deadline = time.monotonic() + 10
    while not (yard.job() / "ended.json").exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    ended = json.loads((yard.job() / "ended.json").read_text())
    assert ended["exit_code"] == ExitCode.BAD_INPUT and "log.txt" in ended["message"]


@pytest.mark.parametrize("asked", [{"nodes": 2}, {"gpus": 2}])
async def test_this_machine_trains_in_one_process(tmp_path: Path, asked: dict[str, int]) -> None:
    engine = Yard.at(str(tmp_path)).another(gpus=2)
    with pytest.raises(EngineRefused, match="one node and one GPU at most"):
        await engine.preflight(parse_spec("distilgpt2", asked))
