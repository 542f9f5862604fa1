"""This machine as an engine: a folder a job, a supervisor process a start, and the files between them.

`HOME/jobs/NAME/` holds job.json (what was created), started.json (the one claim of its start), cancel, ended.json,
log.txt and output/. All are written whole or not at all, so a crash of bot, supervisor or machine leaves a state that
`observe` can tell. The supervisor (`tools.engines.supervisor`) outlives the bot; it is found again by its pid and
birth.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

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
    must_be_for,
)
from tools.engines.supervisor import birth, passed, sync_folder, write_whole
from tools.progress import PREFIX, Progress, parse_lines
from tools.spec import TrainingSpec

CHECKPOINT = "checkpoint.pt"  # as every trainer names it, in its output folder
CLAIM_SECONDS = 10.0  # for a supervisor to claim its start
FREE_BYTES = 200 * 2**20  # below it not even a checkpoint fits
LINE_LIMIT = 8192  # bytes; longer lines are no progress of ours
READ_BYTES = 8 * 2**20  # of log in memory at once
TAIL_BYTES = 64 * 2**10  # of log looked at first for lines that are for people
TAIL_LIMIT = 4 * 2**20  # and at most: an epoch of an hour is a megabyte of progress lines
WIDTH = 300  # characters of a log line that go on to people
SOURCE = Path(__file__).resolve().parents[2]  # where `tools` is found
# Terminals' escape sequences: CSI, OSC (titles and links, to their end), all others.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_MARK = PREFIX.encode()


@dataclass
class _Reading:
    """How far a job's log was read, and what it said up to there."""

    offset: int = 0
    rest: bytes = b""
    progress: Progress = field(default_factory=Progress)
    one: threading.Lock = field(default_factory=threading.Lock)  # two looks at once would count lines twice


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
        self._supervisors: list[subprocess.Popen[bytes]] = []  # kept to be reaped, else they stay as zombies

    async def preflight(self, spec: TrainingSpec) -> None:
        """Refuse what this machine could never run."""
        if spec.gpus > self._gpus:
            has = f"{self._gpus} GPU(s)" if self._gpus else "no GPU"
            raise EngineRefused(
                f"This machine has {has}, and {spec.recipe} asks for {spec.gpus}. Ask for it on CPU cores: no gpu."
            )
        if spec.processes > 1:
            raise EngineRefused(
                "This machine trains in one process: ask for one node and one GPU at most. Several need a cluster "
                "(SIGNALBOX_ENGINE=kubernetes)."
            )
        if spec.memory_gib is not None:
            raise EngineRefused("A training on this machine shares its memory with everything else: no memory_gib.")
        if shutil.which(self._python) is None:
            raise EngineRefused(
                f"The trainers' interpreter {self._python} is not there. Run `make setup`, "
                "or set SIGNALBOX_TRAINER_PYTHON."
            )
        if spec.resume_from and not self._checkpoint(spec.resume_from).exists():
            raise EngineRefused(f"{spec.resume_from} has left no checkpoint here. Train from the beginning instead.")
        await asyncio.to_thread(self._require_room)

    def _require_room(self) -> None:
        with _translated():
            there = next(folder for folder in (self._jobs, *self._jobs.parents) if folder.exists())
            free = shutil.disk_usage(there).free
        if free < FREE_BYTES:
            raise EngineRefused(f"The disk under {there} is nearly full. Free some space, then ask again.")

    async def offers(self) -> str:
        """How much of this machine."""
        gpus = f", {self._gpus} GPU(s)" if self._gpus else ""
        return f"local: {self._max_jobs} at once, {self._cpu_cores} cores charged{gpus}"

    def resources(self, spec: TrainingSpec) -> Resources:
        """CPU cores as charged; a GPU's hour includes its host."""
        product = self._gpu_product if spec.gpus else None
        return Resources(cpu_cores=self._cpu_cores, gpus=spec.gpus, gpu_product=product)

    def render(self, spec: TrainingSpec) -> dict[str, Any]:
        """All that will run. `create` takes nothing from the settings of its own day, only this."""
        threads = str(max(1, min(int(self._cpu_cores), os.cpu_count() or 1)))
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        if not spec.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""  # what is not charged is not there
        return {
            "engine": self.name,
            "version": 1,
            "recipe": spec.recipe,
            "parameters": spec.canonical(),
            "command": [self._python, "-m", spec.module, *spec.argv(), "--data-dir", str(self._data_dir)],
            "source": str(self._source),
            "env": environment,
            "resources": self.resources(spec).document(),
            "max_runtime_seconds": spec.max_runtime_minutes * 60,
            "grace_seconds": self._grace_seconds,
            **({"resume_from": spec.resume_from} if spec.resume_from else {}),
        }

    def _checkpoint(self, name: str) -> Path:
        return self._folder(name) / "output" / CHECKPOINT

    async def free_slots(self) -> int:
        """What `max_jobs` leaves beside the trainings that hold this machine now."""
        return max(0, self._max_jobs - await asyncio.to_thread(self._alive))

    def _alive(self) -> int:
        with _translated():
            names = [folder.name for folder in self._jobs.glob("[!.]*") if not (folder / "ended.json").exists()]
            return sum(self._goes_on(name) for name in names)

    async def create(self, submission: Submission) -> str:
        """The job's folder, whole or not at all; suspended. Idempotent by digest."""
        must_be_for(self.name, submission.manifest)
        return await asyncio.to_thread(self._create, submission)

    def _create(self, submission: Submission) -> str:
        uid = self._created(submission) or self._put(submission) or self._created(submission)
        if uid is None:
            folder = self._folder(submission.name)
            raise NameTaken(f"There is something else in {folder}; it was left alone. Move that folder away to go on.")
        return uid

    def _created(self, submission: Submission) -> str | None:
        """The uid of this very job, if it is there already."""
        there = self._read(submission.name, "job.json")
        if there is not None and there.get("digest") != submission.digest:
            folder = self._folder(submission.name)
            raise NameTaken(f"There is another job in {folder}; it was left alone. Move that folder away to go on.")
        return None if there is None else str(there["uid"])

    def _put(self, submission: Submission) -> str | None:
        """Put it there and answer its uid; None if something is there already."""
        folder = self._folder(submission.name)
        document = {
            "uid": str(uuid.uuid4()),
            "digest": submission.digest,
            "proposal_id": submission.proposal_id,
            "manifest": dict(submission.manifest),
            "run_id": submission.run_id,
            "tracking_uri": submission.tracking_uri,
        }
        spare = self._jobs / f".{submission.name}.{document['uid']}"
        with _translated():
            try:
                self._jobs.mkdir(parents=True, exist_ok=True)
                spare.mkdir(mode=0o700)  # the address in it may hold a password
                write_whole(spare / "job.json", document)
                spare.rename(folder)  # refused by the kernel if a folder with anything in it is there
            except OSError:
                shutil.rmtree(spare, ignore_errors=True)
                if not folder.exists():
                    raise
                return None
            sync_folder(self._jobs)
        return str(document["uid"])

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
        path = os.pathsep.join(filter(None, (str(SOURCE), os.environ.get("PYTHONPATH"))))
        with _translated(), (folder / "supervisor.log").open("ab") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "tools.engines.supervisor", str(folder)],
                cwd=SOURCE,
                env=passed(os.environ) | {"PYTHONPATH": path},  # a trainer can read its supervisor's environment
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._supervisors = [one for one in (*self._supervisors, supervisor) if one.poll() is None]
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
        try:
            job = self._read(name, "job.json")
        except EngineUnavailable:
            job = {"uid": uid}  # whoever spoilt the file, the person wants the training to end
        if job is not None and job.get("uid") == uid:
            asked = {"cancelled_at": datetime.now(UTC).isoformat()}
            with _translated():
                if not write_whole(self._folder(name) / "started.json", asked, exclusive=True):
                    write_whole(self._folder(name) / "cancel", asked, exclusive=True)

    async def observe(self, name: str) -> Observation:
        """What the files and the process table say."""
        return await asyncio.to_thread(self._observe, name)

    def _observe(self, name: str) -> Observation:
        job = self._known(name)
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
        alive = self._goes_on(name)
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
                resumable=self._checkpoint(job["manifest"].get("resume_from", name)).exists(),
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
        """Read from the end, further back until enough is found among the progress lines."""
        path = self._folder(name) / "log.txt"
        window = TAIL_BYTES
        with _translated():
            if lines < 1 or not path.exists():
                return []
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                while True:
                    start = file.seek(max(0, size - window))
                    told = for_people(file.read(size - start), cut=start > 0)
                    if len(told) >= lines or start == 0 or window >= TAIL_LIMIT:
                        return told[-lines:]
                    window *= 8

    def _progress(self, name: str) -> Progress:
        """What the log says up to now, read on from where the last look ended."""
        reading = self._readings.setdefault(name, _Reading())
        path = self._folder(name) / "log.txt"
        with reading.one, _translated():
            if path.exists():
                with path.open("rb") as file:
                    file.seek(reading.offset)
                    while read := file.read(READ_BYTES):
                        _fold(reading, read)
            return reading.progress

    def _goes_on(self, name: str) -> bool:
        """Whether its supervisor lives, or still its trainer: one that dies with it may take a while to be gone."""
        return any(_lives(self._read(name, file)) for file in ("started.json", "trainer.json"))

    def _folder(self, name: str) -> Path:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,100}", name):
            raise EngineRefused(f"{name[:60]!r} is no job's name.")
        return self._jobs / name

    def _known(self, name: str) -> dict[str, Any] | None:
        """What was created; None too where that cannot be read any more and what ran of it is over."""
        try:
            job = self._read(name, "job.json")
            if job is not None and not {"uid", "digest"} <= job.keys():
                raise EngineUnavailable(f"{self._folder(name) / 'job.json'} is not whole; mend it.")
        except EngineUnavailable:
            started = self._read(name, "started.json")
            if started is None or self._goes_on(name):
                raise
            return None
        return job

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
    told = [line.decode("utf-8", "replace") for line in whole if line.startswith(_MARK) and len(line) <= LINE_LIMIT]
    reading.progress = parse_lines(told, reading.progress)


def for_people(tail: bytes, *, cut: bool) -> list[str]:
    """The lines that are no machine's, as a terminal would leave them. `cut`: the first has lost its beginning."""
    lines = tail.split(b"\n")
    if cut and len(lines) > 1:
        del lines[0]
    shown = [line.rstrip(b"\r").rpartition(b"\r")[2][:LINE_LIMIT].decode("utf-8", "replace") for line in lines]
    told = [_clean(line) for line in shown if not line.startswith(PREFIX)]
    return [line for line in told if line.strip()]


def _clean(line: str) -> str:
    plain = _ESCAPE.sub("", line).expandtabs(4)
    return "".join(char for char in plain if char.isprintable())[:WIDTH]


def _lives(process: dict[str, Any] | None) -> bool:
    """Whether a process that was noted down still lives: the same pid, of the same birth."""
    born = process.get("birth") if process else None
    return process is not None and born is not None and birth(process["pid"]) == born


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
        raise EngineUnavailable(
            f"The local engine cannot use{where} ({error.strerror}). Look at that folder and the room on its disk."
        ) from error
