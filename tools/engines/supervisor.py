"""One local training's keeper: `python -m tools.engines.supervisor JOB_FOLDER`, a process of its own.

It outlives the bot. It claims the start (once, whoever asks), runs the trainer in a process group, ends it at the
approved maximum runtime or on a cancel, and writes how it ended. A trainer's group never outlives its supervisor, so
that nothing runs unaccounted. Only the standard library and psutil: it starts in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tools.progress import ExitCode

# What a trainer may see of the bot's environment. Everything else, secrets above all, stays here.
PASSED = frozenset(
    {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "USER", "LOGNAME", "SSL_CERT_FILE", "SSL_CERT_DIR"}
)
# An MLflow server's login is among them: the trainer logs there.
PASSED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "HF_", "XDG_", "REQUESTS_CA_", "CURL_CA_", "TORCH_", "MLFLOW_TRACKING_")
PROXIES = frozenset({"http_proxy", "https_proxy", "no_proxy", "all_proxy"})
CHECKPOINT_SHARE = 0.1  # of the runtime, at most, is kept for the checkpoint of a training that is stopped at its end
LOOK_SECONDS = 0.05  # between two looks for a cancel; half a percent of one core
STRAY_SECONDS = 5.0  # for what a trainer left behind to be gone; an end that is never written would be worse
_KERNEL = ctypes.CDLL(None) if sys.platform == "linux" else None  # before the fork: a child should not load libraries


def main(folder: Path) -> int:
    """Claim, run, record. Quietly nothing if the start was claimed before, by a sibling or by a cancel."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if not _claim(folder):
        return 0
    stopped, message = None, None
    try:
        code, stopped = _run(job, folder, stop)
    except OSError as error:
        what = error.filename or folder
        code = ExitCode.BAD_INPUT
        message = (
            f"The trainer could not be started ({error.strerror}: {what}). Run `make setup`, then propose it again."
        )
    except Exception as error:  # whatever it is, a claimed start must come to a recorded end
        traceback.print_exc()
        code = ExitCode.FAILURE
        message = f"The supervisor failed ({type(error).__name__}); see {folder / 'supervisor.log'}."
    _end(folder, code, stopped, message)
    return 0


def passed(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the bot's environment a trainer may see."""
    return {name: value for name, value in environment.items() if _passed(name)}


def birth(pid: int) -> str | None:
    """What tells this process from every other that ever has its pid; None if it is gone or a zombie.

    On Linux the ticks since boot and the boot itself: psutil's moment of creation moves whenever the clock is set,
    and a running training would be taken for dead.
    """
    try:
        if sys.platform == "linux":
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            state, *fields = stat.rpartition(")")[2].split()  # a program's name may hold anything, brackets too
            return None if state in "ZX" else f"{_boot()}/{fields[18]}"
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except (OSError, psutil.Error):
        return None


def write_whole(path: Path, document: dict[str, Any], *, exclusive: bool = False) -> bool:
    """The whole document or nothing, on the disk when this returns. With `exclusive`, False if it is there already."""
    spare = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with spare.open("w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            os.link(spare, path)
        else:
            spare.replace(path)
    except FileExistsError:
        return False
    finally:
        spare.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make the folder's own entries last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def now() -> str:
    return datetime.now(UTC).isoformat()


def _boot() -> str:
    with contextlib.suppress(OSError):  # some sandboxes have none
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _claim(folder: Path) -> bool:
    """Ours to start? The first link wins, so two releases start one training."""
    claim = {"pid": os.getpid(), "birth": birth(os.getpid()), "started_at": now()}
    return write_whole(folder / "started.json", claim, exclusive=True)


def _run(job: dict[str, Any], folder: Path, stop: threading.Event) -> tuple[int, str | None]:
    limits = float(job["manifest"]["max_runtime_seconds"]), float(job["manifest"]["grace_seconds"])
    if _KERNEL is not None:
        _KERNEL.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what a trainer orphans, whatever its session, becomes ours
    with (folder / "log.txt").open("ab", buffering=0) as log:
        trainer = _start(job, folder, log)
    try:
        _guard(trainer.pid)
        with contextlib.suppress(OSError):  # no reason to end it
            write_whole(folder / "trainer.json", {"pid": trainer.pid, "birth": birth(trainer.pid)})
        return _watch(trainer, *limits, folder, stop)
    finally:
        _kill_group(trainer.pid, signal.SIGKILL)  # whatever it left behind
        _kill_strays()


def _start(job: dict[str, Any], folder: Path, log: Any) -> subprocess.Popen[bytes]:
    manifest = job["manifest"]
    environment = passed(os.environ) | {
        **manifest["env"],
        "MLFLOW_RUN_ID": job["run_id"],
        "MLFLOW_TRACKING_URI": job["tracking_uri"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": manifest["source"],
    }
    output = folder.parent / manifest.get("resume_from", folder.name) / "output"
    output.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*manifest["command"], "--output-dir", str(output)],
        cwd=manifest["source"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=partial(_die_with, os.getpid()),
    )


def _guard(group: int) -> None:
    """A process that waits for our death and takes the trainer's whole group along; else it ends with the strays."""
    read, held = os.pipe()  # the kernel closes our end, whatever we die of
    if os.fork():
        os.close(read)
        return
    os.setsid()  # who kills our group does not kill it
    os.close(held)
    os.read(read, 1)
    _kill_group(group, signal.SIGKILL)
    os._exit(0)


def _passed(name: str) -> bool:
    return name in PASSED or name.startswith(PASSED_PREFIXES) or name.lower() in PROXIES


def _die_with(supervisor: int) -> None:
    """In the child, on Linux: PR_SET_PDEATHSIG, so that a killed supervisor takes its trainer along."""
    if _KERNEL is not None:
        _KERNEL.prctl(1, signal.SIGKILL)
        if os.getppid() != supervisor:  # it died before the line above
            os.kill(os.getpid(), signal.SIGKILL)


def _watch(
    trainer: subprocess.Popen[bytes], runtime: float, grace: float, folder: Path, stop: threading.Event
) -> tuple[int, str | None]:
    """Until it ends: its exit status (negative: the signal), and why we ended it, if we did.

    The approved runtime is the last moment of all: the time for a checkpoint is taken from its end, not put on top. A
    job folder that is taken away ends the training too, since nothing could account for it any more.
    """
    end = _clock() + runtime
    deadline = end - min(grace, runtime * CHECKPOINT_SHARE)
    stopped: str | None = None
    kill_at: float | None = None
    while True:
        try:
            return trainer.wait(LOOK_SECONDS), stopped
        except subprocess.TimeoutExpired:
            moment = _clock()
        if stopped is None:
            cancelled = stop.is_set() or (folder / "cancel").exists() or not (folder / "job.json").exists()
            stopped = "cancelled" if cancelled else "deadline" if moment >= deadline else None
            if stopped is not None:
                _kill_group(trainer.pid, signal.SIGTERM)
                kill_at = min(moment + grace, max(end, moment))
        elif kill_at is not None and moment >= kill_at:
            _kill_group(trainer.pid, signal.SIGKILL)
            kill_at = None


def _clock() -> float:
    """Seconds that go on while the machine sleeps, where the system has such a clock: cost does too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _kill_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _kill_strays() -> None:
    """What left the trainer's group. Over and over, for a while: a dying parent may fork once more."""
    until = time.monotonic() + STRAY_SECONDS
    while time.monotonic() < until and (strays := _living_children()):
        for stray in strays:
            with contextlib.suppress(psutil.Error):
                stray.kill()
        time.sleep(0.01)


def _living_children() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [child for child in found if birth(child.pid) is not None]


def _end(folder: Path, code: int, stopped: str | None, message: str | None) -> None:
    ended = {"exit_code": code, "ended_at": now(), "stopped": stopped, "message": message}
    while True:
        try:
            write_whole(folder / "ended.json", ended)
            return
        except FileNotFoundError:  # the folder was taken away: there is nowhere to write
            return
        except OSError:  # a full disk: the end must not be lost, so wait for room
            time.sleep(5)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
