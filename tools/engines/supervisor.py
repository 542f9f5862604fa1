"""One local training's keeper: `python -m tools.engines.supervisor JOB_FOLDER`, a process of its own.

It outlives the bot. It claims the start (once, whoever asks), runs the trainer in a process group, ends it at the
approved maximum runtime or on a cancel, and writes how it ended. A trainer never outlives its supervisor (Linux), so
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

# What a trainer may see of the bot's environment. Everything else, secrets above all, stays here.
PASSED = frozenset(
    {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "USER", "LOGNAME", "SSL_CERT_FILE", "SSL_CERT_DIR"}
)
PASSED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "HF_", "XDG_", "REQUESTS_CA_", "CURL_CA_", "OPENBLAS_", "MKL_", "TORCH_")
PROXIES = frozenset({"http_proxy", "https_proxy", "no_proxy", "all_proxy"})
CANNOT_START = 127  # the shell's word for it
LOOK_SECONDS = 0.05  # between two looks for a cancel; the trainer's own end wakes at once


def main(folder: Path) -> int:
    """Claim, run, record. Quietly nothing if the start was claimed before, by a sibling or by a cancel."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if not _claim(folder):
        return 0
    log = (folder / "log.txt").open("ab", buffering=0)
    try:
        trainer = _start(job, folder, log)
    except OSError as error:
        message = (
            f"The trainer could not be started ({error.strerror}: {job['manifest']['command'][0]}). Run `make setup`."
        )
        _end(folder, CANNOT_START, None, message)
        return 0
    code, stopped = _watch(trainer, job["manifest"], folder, stop)
    _kill_group(trainer.pid, signal.SIGKILL)  # whatever it left behind
    _end(folder, code, stopped, None)
    return 0


def write_whole(path: Path, document: dict[str, Any], *, exclusive: bool = False) -> bool:
    """The whole document or nothing, on the disk when this returns. With `exclusive`, False if it is there already."""
    spare = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with spare.open("w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    try:
        if exclusive:
            os.link(spare, path)
            spare.unlink()
        else:
            spare.replace(path)
    except FileExistsError:
        spare.unlink()
        return False
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


def _claim(folder: Path) -> bool:
    """Ours to start? The first link wins, so two releases start one training."""
    own = psutil.Process()
    claim = {"pid": own.pid, "created": own.create_time(), "started_at": now()}
    return write_whole(folder / "started.json", claim, exclusive=True)


def _start(job: dict[str, Any], folder: Path, log: Any) -> subprocess.Popen[bytes]:
    manifest = job["manifest"]
    environment = {name: value for name, value in os.environ.items() if _passed(name)} | {
        **manifest["env"],
        "MLFLOW_RUN_ID": job["run_id"],
        "MLFLOW_TRACKING_URI": job["tracking_uri"],
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": manifest["source"],
    }
    output = folder / "output"
    output.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*manifest["command"], "--output-dir", str(output)],
        cwd=manifest["source"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )


def _passed(name: str) -> bool:
    return name in PASSED or name.startswith(PASSED_PREFIXES) or name.lower() in PROXIES


def _die_with_parent() -> None:
    """In the child, on Linux: PR_SET_PDEATHSIG, so that a killed supervisor takes its trainer along."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _watch(
    trainer: subprocess.Popen[bytes], manifest: dict[str, Any], folder: Path, stop: threading.Event
) -> tuple[int, str | None]:
    """Until it ends: its exit status (negative: the signal), and why we ended it, if we did."""
    deadline = time.monotonic() + manifest["max_runtime_seconds"]
    stopped: str | None = None
    kill_at: float | None = None
    while True:
        try:
            return trainer.wait(LOOK_SECONDS), stopped
        except subprocess.TimeoutExpired:
            moment = time.monotonic()
        if stopped is None:
            cancelled = stop.is_set() or (folder / "cancel").exists()
            stopped = "cancelled" if cancelled else "deadline" if moment >= deadline else None
            if stopped is not None:
                _kill_group(trainer.pid, signal.SIGTERM)
                kill_at = moment + manifest["grace_seconds"]
        elif kill_at is not None and moment >= kill_at:
            _kill_group(trainer.pid, signal.SIGKILL)
            kill_at = None


def _kill_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _end(folder: Path, code: int, stopped: str | None, message: str | None) -> None:
    ended = {"exit_code": code, "ended_at": now(), "stopped": stopped, "message": message}
    while True:
        try:
            write_whole(folder / "ended.json", ended)
            return
        except OSError:  # a full disk: the end must not be lost, so wait for room
            time.sleep(5)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
