"""This machine as an engine: a folder a job, a supervisor process a start, and the files between them.

`HOME/jobs/NAME/` holds job.json (what was created), started.json (the one claim of its start), cancel, ended.json,
log.txt and output/. All are written whole or not at all, so a crash of bot, supervisor or machine leaves a state that
`observe` can tell. The supervisor (`tools.engines.supervisor`) outlives the bot; it is found again by its pid and the
moment of its birth.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil

from tools.cost import Resources
from tools.engines.base import (
    Attempt,
    EngineRefused,
    EngineUnavailable,
    NameTaken,
    Observation,
    Standing,
    StopReason,
    Submission,
)
from tools.engines.supervisor import sync_folder, write_whole
from tools.progress import PREFIX, Progress, parse_lines
from tools.spec import TrainingSpec

CLAIM_SECONDS = 15.0  # for a supervisor to claim its start
FREE_BYTES = 200 * 2**20  # below it not even a checkpoint fits
LINE_LIMIT = 8192  # bytes; longer lines are no progress of ours
READ_LIMIT = 8 * 2**20  # bytes of log read at one look; the rest at the next
TAIL_BYTES = 64 * 1024
WIDTH = 300  # characters of a log line that go on to people
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass
class _Reading:
    """How far a job's log was read, and what it said up to there."""

    offset: int = 0
    rest: bytes = b""
    progress: Progress = field(default_factory=Progress)


class LocalEngine:
    """Runs trainers as processes.

    `python` is the trainers' interpreter, `source` the folder that `-m trainers.…` is found in, `cpu_cores` what a CPU
    training is charged, `gpus` what this machine has, `max_jobs` how many trainings may run at once.
    """

    name = "local"

    def __init__(
        self,
        *,
        home: Path,
        python: str,
        source: Path,
        data_dir: Path,
        cpu_cores: Decimal = Decimal(4),
        gpus: int = 0,
        gpu_product: str | None = None,
        max_jobs: int = 1,
        grace_seconds: int = 30,
    ) -> None:
        self._jobs = home / "jobs"
        self._python = python
        self._source = source
        self._data_dir = data_dir
        self._cpu_cores = cpu_cores
        self._gpus = gpus
        self._gpu_product = gpu_product
        self._max_jobs = max_jobs
        self._grace_seconds = grace_seconds
        self._readings: dict[str, _Reading] = {}

    async def preflight(self, spec: TrainingSpec) -> None:
        """Refuse what this machine could never run."""
        if spec.gpus > self._gpus:
            has = f"{self._gpus} GPU(s)" if self._gpus else "no GPU"
            raise EngineRefused(
                f"This machine has {has}, and {spec.recipe} asks for {spec.gpus}. Ask for it on CPU cores: no gpu."
            )
        if not os.access(self._python, os.X_OK):
            raise EngineRefused(
                f"The trainers' interpreter {self._python} is not there. Run `make setup`, "
                "or set SIGNALBOX_TRAINER_PYTHON."
            )
        there = next(folder for folder in (self._jobs, *self._jobs.parents) if folder.exists())
        if shutil.disk_usage(there).free < FREE_BYTES:
            raise EngineRefused(f"The disk under {there} is nearly full. Free some space, then ask again.")

    def resources(self, spec: TrainingSpec) -> Resources:
        """CPU cores as charged; a GPU's hour includes its host."""
        product = self._gpu_product if spec.gpus else None
        return Resources(cpu_cores=self._cpu_cores, gpus=spec.gpus, gpu_product=product)

    def render(self, spec: TrainingSpec) -> dict[str, Any]:
        """All that will run. `create` takes nothing from the settings of its own day, only this."""
        threads = str(max(1, min(int(self._cpu_cores), os.cpu_count() or 1)))
        return {
            "engine": self.name,
            "version": 1,
            "recipe": spec.recipe,
            "command": [self._python, "-m", spec.module, *spec.argv(), "--data-dir", str(self._data_dir)],
            "source": str(self._source),
            "env": {"OMP_NUM_THREADS": threads},
            "max_runtime_seconds": spec.max_runtime_minutes * 60,
            "grace_seconds": self._grace_seconds,
        }

    async def free_slots(self) -> int:
        """What `max_jobs` leaves beside the trainings that hold this machine now."""
        return self._max_jobs - await asyncio.to_thread(self._alive)

    def _alive(self) -> int:
        with _translated():
            folders = [folder for folder in self._jobs.glob("*") if (folder / "started.json").exists()]
        return sum(not (folder / "ended.json").exists() and _supervised(folder) for folder in folders)

    async def create(self, submission: Submission) -> str:
        """The job's folder, whole or not at all; suspended. Idempotent by digest."""
        return await asyncio.to_thread(self._create, submission)

    def _create(self, submission: Submission) -> str:
        folder = self._folder(submission.name)
        document = {
            "uid": uuid.uuid4().hex,
            "digest": submission.digest,
            "proposal_id": submission.proposal_id,
            "manifest": dict(submission.manifest),
            "run_id": submission.run_id,
            "tracking_uri": submission.tracking_uri,
        }
        with _translated():
            self._jobs.mkdir(parents=True, exist_ok=True)
            spare = self._jobs / f".{submission.name}.{document['uid']}"
            spare.mkdir()
            write_whole(spare / "job.json", document)
            try:
                spare.rename(folder)  # refused by the kernel if a folder with anything in it is there
                sync_folder(self._jobs)
                return str(document["uid"])
            except OSError:
                shutil.rmtree(spare, ignore_errors=True)
                if not folder.exists():
                    raise
        there = self._read(submission.name, "job.json")
        if there is None or there.get("digest") != submission.digest:
            raise NameTaken(f"There is another job in {folder}; it was left alone. Move that folder away to go on.")
        return str(there["uid"])

    async def release(self, name: str, uid: str) -> None:
        """Start the supervisor and wait until the start is claimed, by it or by one before it."""
        await asyncio.to_thread(self._release, name, uid)

    def _release(self, name: str, uid: str) -> None:
        job = self._read(name, "job.json")
        if job is None or job.get("uid") != uid:
            raise EngineRefused(f"The job {name} is not the one that was created; it was not started.")
        folder = self._folder(name)
        if self._read(name, "started.json") is not None:
            return
        with _translated(), (folder / "supervisor.log").open("ab") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "tools.engines.supervisor", str(folder)],
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + CLAIM_SECONDS
        while self._read(name, "started.json") is None:
            if supervisor.poll() is not None and self._read(name, "started.json") is None:
                raise EngineUnavailable(f"The supervisor of {name} did not start; see {folder / 'supervisor.log'}.")
            if time.monotonic() > deadline:
                raise EngineUnavailable(f"The supervisor of {name} did not start within {CLAIM_SECONDS:.0f} s.")
            time.sleep(0.01)

    async def cancel(self, name: str, uid: str) -> None:
        """Leave word for the supervisor. A suspended job: take its one start ourselves, so that nobody ever can."""
        await asyncio.to_thread(self._cancel, name, uid)

    def _cancel(self, name: str, uid: str) -> None:
        job = self._read(name, "job.json")
        if job is not None and job.get("uid") == uid:
            asked = {"cancelled_at": datetime.now(UTC).isoformat()}
            with _translated():
                if not write_whole(self._folder(name) / "started.json", asked, exclusive=True):
                    write_whole(self._folder(name) / "cancel", asked, exclusive=True)

    async def observe(self, name: str) -> Observation:
        """What the files and the process table say."""
        return await asyncio.to_thread(self._observe, name)

    def _observe(self, name: str) -> Observation:
        job = self._read(name, "job.json")
        if job is None:
            return Observation(standing=Standing.ABSENT)
        seen = Observation(standing=Standing.SUSPENDED, uid=job["uid"], digest=job["digest"])
        folder = self._folder(name)
        started = self._read(name, "started.json")
        if started is None:
            return seen
        if "cancelled_at" in started:
            return replace(seen, standing=Standing.ENDED, stopped=StopReason.CANCELLED)
        began = datetime.fromisoformat(started["started_at"])
        alive = _supervised(folder)
        ended = self._read(name, "ended.json")  # after the look at the process, so that an end in between is seen
        progress = self._progress(name)
        if ended is not None:
            attempt = Attempt(number=1, started_at=began, ended_at=datetime.fromisoformat(ended["ended_at"]))
            return replace(
                seen,
                standing=Standing.ENDED,
                attempts=(attempt,),
                exit_code=ended["exit_code"],
                stopped=StopReason(ended["stopped"]) if ended["stopped"] else None,
                progress=replace(progress, error=progress.error or ended["message"]),
            )
        if alive:
            return replace(
                seen, standing=Standing.RUNNING, attempts=(Attempt(number=1, started_at=began),), progress=progress
            )
        last = max(began, _last_sign(folder / "log.txt", began))
        attempt = Attempt(number=1, started_at=began, ended_at=last, estimated=True)
        return replace(seen, standing=Standing.ENDED, attempts=(attempt,), progress=progress)

    async def logs(self, name: str, lines: int) -> Sequence[str]:
        """The last lines that are for people."""
        return await asyncio.to_thread(self._logs, name, lines)

    def _logs(self, name: str, lines: int) -> list[str]:
        path = self._folder(name) / "log.txt"
        if not path.exists():
            return []
        with _translated(), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode("utf-8", "replace")
        told = [_UNPRINTABLE.sub("", line)[:WIDTH] for line in text.splitlines() if not line.startswith(PREFIX)]
        return [line for line in told if line.strip()][-lines:]

    def _progress(self, name: str) -> Progress:
        """What the log says up to now, read on from where the last look ended."""
        reading = self._readings.setdefault(name, _Reading())
        path = self._folder(name) / "log.txt"
        with _translated():
            if not path.exists():
                return reading.progress
            with path.open("rb") as file:
                while True:
                    file.seek(reading.offset)
                    read = file.read(READ_LIMIT)
                    if not read:
                        return reading.progress
                    _fold(reading, read)

    def _folder(self, name: str) -> Path:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,100}", name):
            raise EngineRefused(f"{name[:60]!r} is no job's name.")
        return self._jobs / name

    def _read(self, name: str, file: str) -> dict[str, Any] | None:
        path = self._folder(name) / file
        with _translated():
            try:
                document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            except (FileNotFoundError, NotADirectoryError):
                return None
            except ValueError as error:
                raise EngineUnavailable(f"{path} cannot be read ({error}); mend or remove it.") from error
        return document


def _fold(reading: _Reading, read: bytes) -> None:
    reading.offset += len(read)
    *whole, reading.rest = (reading.rest + read).split(b"\n")
    reading.rest = reading.rest[: LINE_LIMIT + 1]  # beyond the limit its end alone matters
    told = [line.decode("utf-8", "replace") for line in whole if len(line) <= LINE_LIMIT]
    reading.progress = parse_lines(told, reading.progress)


def _supervised(folder: Path) -> bool:
    """Whether the supervisor that claimed this job still lives: the same pid, born at the same moment."""
    try:
        claim = json.loads((folder / "started.json").read_text(encoding="utf-8"))
        process = psutil.Process(claim["pid"])
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - claim["created"]) < 0.01
    except (OSError, ValueError, KeyError, psutil.Error):
        return False


def _last_sign(path: Path, otherwise: datetime) -> datetime:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return otherwise


@contextmanager
def _translated() -> Iterator[None]:
    """Operating-system errors as sentences of ours."""
    try:
        yield
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise EngineUnavailable(f"The local engine cannot use{where} ({error.strerror}).") from error
