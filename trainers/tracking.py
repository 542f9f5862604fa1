"""MLflow, kept out of the training's way: a child process writes the record, the trainer only feeds it.

MLflow takes seconds to import and as long as its server pleases to answer. In a process of its own it does both beside
the training, holds none of its locks, and can be given up on. The trainer keeps the whole record as well: what a dead
server did not take is left as JSON in the output folder, so that nothing is lost. The writer adds what it sees of the
machine itself (`trainers.machine`); that alone is lost if the server never comes back.

Without MLFLOW_RUN_ID, MLFLOW_TRACKING_URI or --experiment there is no child and no record.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trainers import model_folder
from trainers.machine import Load, facts
from trainers.reporting import finite, note

if TYPE_CHECKING:
    from mlflow import MlflowClient

UNSENT = "mlflow-unsent.json"  # in the output folder
RUN_FILE = "mlflow-run-id"  # in the output folder: the run that a resumed training goes on with
DEFAULT_EXPERIMENT = "signalbox"
SEND_INTERVAL = 2.0  # seconds between two batches
RETRY_INTERVAL = 20.0  # seconds until a server that failed is asked again
LAST_WAITS = (1.0, 3.0, 6.0)  # seconds before it is asked once more when the training has ended
NICENESS = 10  # of the writer: the cores are the training's
CLOSE_TIMEOUT = 300.0  # seconds for the last batch and the artifacts; a fine-tuned model is some hundred MB
INTERRUPTED_TIMEOUT = 12.0  # Kubernetes kills 30 s after SIGTERM
BATCH_METRICS = 1000  # MLflow's own limit for one call of log_batch
# A short time-out and one retry for each call; the writer asks again by itself. Set values win.
HTTP_DEFAULTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}

Record = dict[str, Any]  # {"kind": "param" | "tag" | "metric" | "artifact" | "model" | "end", …}


class Tracker:
    """The trainer's side. Every method returns at once, save `close`; none raises because of MLflow."""

    def __init__(self, *, name: str, experiment: str | None, output_dir: Path, resume: bool) -> None:
        """Start the writer if MLflow is configured. `name` is that of a new run; `resume` goes on with the last one."""
        self.run_id = os.environ.get("MLFLOW_RUN_ID") or None
        self._output_dir = output_dir
        self._records: list[Record] = []
        self._writer: subprocess.Popen[str] | None = None
        if self.run_id or experiment or os.environ.get("MLFLOW_TRACKING_URI"):
            arguments = {"run_id": self.run_id, "name": name, "output_dir": str(output_dir), "resume": resume}
            arguments["experiment"] = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
            self._writer = subprocess.Popen(
                [sys.executable, "-m", "trainers.tracking", json.dumps(arguments)],
                stdin=subprocess.PIPE,
                text=True,
                env={**HTTP_DEFAULTS, **os.environ},
                start_new_session=True,  # a signal to the trainer's group must not take its record away
            )

    @property
    def active(self) -> bool:
        """Whether there is a record at all."""
        return self._writer is not None

    def params(self, params: Mapping[str, object]) -> None:
        """Record parameters; those that the run has already stay as they are."""
        for name, value in params.items():
            self._put("param", name=name, value=str(value))

    def tags(self, tags: Mapping[str, object]) -> None:
        """Record tags; a newer value replaces the older."""
        for name, value in tags.items():
            self._put("tag", name=name, value=str(value))

    def metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics at a step; values that are not finite are left out."""
        now = int(time.time() * 1000)
        for name, value in finite(metrics).items():
            self._put("metric", name=name, value=value, step=step, timestamp=now)

    def artifact(self, path: Path) -> None:
        """Record a file or a folder, which must stay as it is until `close`."""
        self._put("artifact", path=str(path.resolve()))

    def model(self, folder: Path, contents: dict[str, Any]) -> None:
        """Record a folder of `model_folder`, with what that returned; it must stay as it is until `close`."""
        self._put("model", path=str(folder.resolve()), contents=contents)

    def close(self, status: str, hurried: Callable[[], bool] = bool) -> None:
        """Finish the run as FINISHED, FAILED or KILLED, and wait for the writer; what it missed is left as JSON.

        `hurried` tells whether a signal has come, after which there is little time.
        """
        if self._writer is None:
            return
        self._put("end", status=status)
        try:
            if self._writer.stdin:
                self._writer.stdin.close()
            waited = 0
            while self._writer.poll() is None and waited < CLOSE_TIMEOUT and not (status == "KILLED" or hurried()):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._writer.wait(1.0)
                waited += 1
            complete = self._writer.wait(INTERRUPTED_TIMEOUT) == 0
        except (OSError, subprocess.TimeoutExpired):
            self._writer.kill()
            self._writer.wait()
            complete = False
        unsent = self._output_dir / UNSENT
        if complete:
            unsent.unlink(missing_ok=True)
            return
        try:
            self._output_dir.mkdir(parents=True, exist_ok=True)
            unsent.write_text(json.dumps({"run_id": self.run_id, "records": self._records}, indent=1), encoding="utf-8")
        except OSError as problem:
            note(f"MLflow did not take the whole record, and it could not be kept in {unsent} ({problem.strerror}).")
        else:
            note(f"MLflow did not take the whole record of this training; it is kept in {unsent}.")

    def _put(self, kind: str, **fields: Any) -> None:
        if self._writer is None or self._writer.stdin is None:
            return
        record: Record = {"kind": kind, **fields}
        self._records.append(record)
        try:
            self._writer.stdin.write(json.dumps(record) + "\n")
            self._writer.stdin.flush()
        except (OSError, ValueError):
            pass  # the writer has died; `close` sees it and keeps the record


class Writer:
    """The child's side: sends batches to one MLflow run, and keeps those that failed until they are taken."""

    def __init__(self, *, run_id: str | None, name: str, experiment: str, output_dir: str, resume: bool) -> None:
        self._run_id, self._name, self._experiment = run_id, name, experiment
        self._run_file = Path(output_dir) / RUN_FILE
        self._resume = resume
        self._client: MlflowClient | None = None
        self._known_params: set[str] = set()
        self._pending: list[Record] = []
        self._load = Load()
        self._warned = False

    def serve(self, lines: Iterable[str]) -> bool:
        """Send what the lines bring until they end; whether all of it was taken, artifacts and status included."""
        batches = _batches(lines, lambda: RETRY_INTERVAL if self._warned and self._pending else SEND_INTERVAL)
        self._flush()
        for records in batches:
            self._pending += records
            self._flush()
        for seconds in LAST_WAITS:
            if self._pending:
                time.sleep(seconds)
                self._flush()
        return not self._pending

    def _flush(self) -> None:
        try:
            self._pending[:0] = self._load.records()
            client, run_id = self._connected()
            self._send(client, run_id)
            self._warned = False
        except Exception as problem:  # whatever MLflow and its libraries raise: training goes on
            if not self._warned:
                self._warned = True
                # The name alone: the text of a network error may carry the server's password.
                note(
                    f"MLflow does not take records now ({type(problem).__name__}); training goes on and they are kept."
                )

    def _connected(self) -> tuple[MlflowClient, str]:
        if self._client is not None and self._run_id is not None:
            return self._client, self._run_id
        from mlflow import MlflowClient

        client = MlflowClient()
        run_id = self._run_id or self._last_run() or self._new_run(client)
        self._run_id = run_id  # before anything else can fail: asking again must not make another run
        run = client.get_run(run_id)
        if run.info.status != "RUNNING":
            client.update_run(run_id, status="RUNNING")
        self._known_params = set(run.data.params)
        # Those of the bot or of the person who made the run stay.
        tags = {name: value for name, value in facts().items() if name not in run.data.tags}
        self._pending[:0] = [{"kind": "tag", "name": name, "value": value} for name, value in tags.items()]
        self._client = client
        return client, run_id

    def _last_run(self) -> str | None:
        if not self._resume:
            return None  # another training's record is not to be written on
        try:
            return self._run_file.read_text(encoding="utf-8").strip() or None
        except OSError:  # there is none to go on with
            return None

    def _new_run(self, client: MlflowClient) -> str:
        experiment = client.get_experiment_by_name(self._experiment)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(self._experiment)
        run_id: str = client.create_run(experiment_id, run_name=self._name).info.run_id
        note(f"The MLflow run is {run_id} in the experiment {self._experiment}.")
        partial = self._run_file.with_suffix(".partial")
        try:
            self._run_file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(run_id, encoding="utf-8")
            partial.replace(self._run_file)
        except OSError as problem:
            note(f"{self._run_file} cannot be written ({problem.strerror}); with --resume a new run would be made.")
        return run_id

    def _send(self, client: MlflowClient, run_id: str) -> None:
        from mlflow.entities import Metric, Param, RunTag

        # MLflow refuses a whole batch for one parameter that has another value, so known ones are left as they are.
        params = [Param(r["name"], r["value"]) for r in self._of_kind("param") if r["name"] not in self._known_params]
        tags = [RunTag(r["name"], r["value"]) for r in self._of_kind("tag")]
        metrics = [Metric(r["name"], r["value"], r["timestamp"], r["step"]) for r in self._of_kind("metric")]
        if params or tags:
            client.log_batch(run_id, params=params, tags=tags)
        for first in range(0, len(metrics), BATCH_METRICS):
            client.log_batch(run_id, metrics=metrics[first : first + BATCH_METRICS])
        self._pending = [r for r in self._pending if r["kind"] in ("artifact", "model", "end")]
        for record in self._of_kind("model"):
            folder = Path(record["path"])
            model_folder.describe(folder, run_id, record["contents"])
            client.log_artifacts(run_id, str(folder), artifact_path=folder.name)
            self._pending.remove(record)
        for record in self._of_kind("artifact"):
            path = Path(record["path"])
            if path.is_dir():
                client.log_artifacts(run_id, str(path), artifact_path=path.name)
            else:
                client.log_artifact(run_id, str(path))
            self._pending.remove(record)
        for record in self._of_kind("end"):
            client.set_terminated(run_id, record["status"])
            self._pending.remove(record)

    def _of_kind(self, kind: str) -> list[Record]:
        return [record for record in self._pending if record["kind"] == kind]


def _batches(lines: Iterable[str], interval: Callable[[], float]) -> Iterator[list[Record]]:
    """The records of the lines, gathered over `interval()` seconds; the last batch comes as soon as the lines end.

    From this call on, not from the first batch that is asked for, a thread empties the pipe: a server that hangs never
    makes the trainer wait for room in it.
    """
    arrived: queue.SimpleQueue[Record | None] = queue.SimpleQueue()

    def read() -> None:
        with contextlib.suppress(ValueError):  # a line that was cut off with the trainer is the last
            for line in lines:
                arrived.put(json.loads(line))
        arrived.put(None)

    threading.Thread(target=read, daemon=True).start()
    return _gathered(arrived, interval)


def _gathered(arrived: queue.SimpleQueue[Record | None], interval: Callable[[], float]) -> Iterator[list[Record]]:
    ended = False
    while not ended:
        batch: list[Record] = []
        deadline = time.monotonic() + interval()
        while not ended and (left := deadline - time.monotonic()) > 0:
            try:
                record = arrived.get(timeout=left)
            except queue.Empty:
                break
            if record is None:
                ended = True
            else:
                batch.append(record)
        yield batch


def main(arguments: str, lines: IO[str]) -> int:
    """Entry point of the child: 0 if MLflow took everything."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # it ends with the trainer, when the lines end
    os.nice(NICENESS)
    return 0 if Writer(**json.loads(arguments)).serve(lines) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.stdin))
