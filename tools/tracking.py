"""MLflow: the run that waits for a training, what it logged, and how runs compare.

Embedded (a SQLite file and a folder of artifacts) or a server, by URI. MLflow's client blocks and is slow to import, so
it is imported at first use and every call runs in a thread with short time-outs. Names, tags and parameters in MLflow
are untrusted text: they come out typed, cut and without control characters. Nothing is tried again here beyond one
retry; that is the reconciler's work (`bot.reconciler`).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

PROPOSAL_TAG = "signalbox.proposal"
TEXT_LIMIT = 200  # characters of a name, tag or parameter that go on to people
EPOCH_METRICS = ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_perplexity")
# Read by MLflow when it is imported and asked; what is set already wins. A server that hangs is given up on after twice
# the time-out, in seconds. Telemetry would tell a third party about a team's trainings.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# MLflow's codes for "asking again will not help".
FOR_GOOD = frozenset(
    {
        "BAD_REQUEST",
        "ENDPOINT_NOT_FOUND",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "PERMISSION_DENIED",
        "RESOURCE_DOES_NOT_EXIST",
        "UNAUTHENTICATED",
    }
)
# What libraries say in paragraphs, in words.
PLAIN = (
    ("Connection refused", "the connection was refused"),
    ("timed out", "it took too long"),
    ("Failed to resolve", "there is no host of that name"),
    ("unable to open database file", "the file cannot be opened"),
    ("readonly database", "the file cannot be written"),
    ("file is not a database", "the file is no database"),
    ("database is locked", "another program holds the file"),
)

T = TypeVar("T")


class TrackingError(Exception):
    """MLflow refused what it was asked. The message names the address, without credentials, and the next step."""


class TrackingUnavailable(TrackingError):
    """MLflow does not answer now; the caller tries again later."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run as MLflow holds it. Metrics are the last values; `epochs` has one row an epoch, with its number."""

    run_id: str
    name: str
    experiment: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    started_at: datetime | None
    ended_at: datetime | None
    epochs: tuple[Mapping[str, float], ...] = field(default=())
    artifact_uri: str = ""

    @property
    def seconds(self) -> float | None:
        """How long it took, as MLflow knows it; None while it runs."""
        return (self.ended_at - self.started_at).total_seconds() if self.started_at and self.ended_at else None


@dataclass(frozen=True, kw_only=True)
class ExperimentSummary:
    """One experiment, how many of its newest runs were looked at, and the newest one's name."""

    name: str
    runs: int
    newest: str | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs side by side: each value is a tuple in the order of `runs`, None where a run has none."""

    runs: tuple[RunSummary, ...]
    params: Mapping[str, tuple[str | None, ...]]  # only those that differ
    metrics: Mapping[str, tuple[float | None, ...]]
    seconds: tuple[float | None, ...]


class Tracking:
    """`artifact_root` is where new experiments keep artifacts; None leaves it to the server."""

    def __init__(self, uri: str, artifact_root: Path | None = None) -> None:
        self.uri = uri
        self._artifact_root = artifact_root
        self._client: Any = None
        self._first = threading.Lock()  # two threads must not both migrate MLflow's database
        self._making: dict[str, threading.Lock] = {}  # by proposal: nor both find no run and make one

    @property
    def shown(self) -> str:
        """The address without credentials."""
        parts = urlsplit(self.uri)
        return self.uri.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else self.uri

    async def ping(self) -> None:
        """Raises `TrackingError` if MLflow does not answer."""
        await self._call(lambda client: client.search_experiments(max_results=1))

    async def ensure_run(
        self,
        experiment: str,
        *,
        proposal_id: str,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
    ) -> str:
        """The id of this proposal's run; made if there is none, found again after a crash in between."""

        def ensure(client: Any) -> str:
            with self._making.setdefault(proposal_id, threading.Lock()):
                experiment_id = self._experiment_id(client, _clean(experiment))
                found = _of_proposal(client, experiment_id, proposal_id)
                if not found:
                    marked = {key: _clean(value) for key, value in tags.items()} | {PROPOSAL_TAG: proposal_id}
                    client.create_run(experiment_id, run_name=_clean(name), tags=marked)
                    found = _of_proposal(client, experiment_id, proposal_id)  # a replica may have been first
                _complete(client, found[0], params)
                return str(found[0].info.run_id)

        if not re.fullmatch(r"[\w.:/-]{1,200}", proposal_id, re.ASCII):  # it goes into a query
            raise TrackingError(f"“{_clean(proposal_id)[:60]}” is no proposal's id, so no run was made for it.")
        return await self._call(ensure)

    async def run(self, run_id: str) -> RunSummary | None:
        """The run of that id, or the newest whose id begins so; None if there is none."""

        def look(client: Any) -> RunSummary | None:
            found = _by_id(client, run_id)
            if found is None:
                return None
            experiment = client.get_experiment(found.info.experiment_id)
            return _summary(found, experiment.name, _epochs(client, found))

        return await self._call(look)

    async def search(self, experiment: str, limit: int) -> list[RunSummary]:
        """The newest runs of one experiment, newest first, without their epochs."""

        def look(client: Any) -> list[RunSummary]:
            found = client.get_experiment_by_name(experiment)
            if found is None:
                names = ", ".join(_clean(one.name) for one in client.search_experiments(max_results=20))
                raise TrackingError(f"MLflow has no experiment “{_clean(experiment)}”; it has {names or 'none'}.")
            runs = client.search_runs([found.experiment_id], max_results=limit, order_by=["attributes.start_time DESC"])
            return [_summary(run, found.name, ()) for run in runs]

        return await self._call(look)

    async def experiments(self) -> list[ExperimentSummary]:
        """Every experiment that has runs; counts stop at 100."""

        def look(client: Any) -> list[ExperimentSummary]:
            found = []
            for one in client.search_experiments(max_results=100):
                runs = client.search_runs([one.experiment_id], max_results=100, order_by=["attributes.start_time DESC"])
                if runs:
                    newest = _clean(runs[0].info.run_name or runs[0].info.run_id)
                    found.append(ExperimentSummary(name=_clean(one.name), runs=len(runs), newest=newest))
            return found

        return await self._call(look)

    async def close(self, run_id: str, status: str) -> None:
        """Set a run's final status (FINISHED, FAILED, KILLED), whatever the trainer managed to write.

        MLflow cannot make a run only if there is none, so two replicas may have made two; the other one goes here.
        """

        def end(client: Any) -> None:
            run = client.get_run(run_id)
            if run.info.status != status:
                client.set_terminated(run_id, status)
            proposal_id = run.data.tags.get(PROPOSAL_TAG)
            if proposal_id is not None:
                for other in _of_proposal(client, run.info.experiment_id, proposal_id):
                    if other.info.run_id != run_id:
                        client.delete_run(other.info.run_id)

        await self._call(end)

    def _experiment_id(self, client: Any, name: str) -> str:
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        folder = re.sub(r"[^\w.-]|^\.+", "_", name)  # a name must not lead out of the root
        place = (self._artifact_root / folder).absolute().as_uri() if self._artifact_root else None
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except Exception:
            made = client.get_experiment_by_name(name)  # by somebody else, meanwhile
            if made is None:
                raise
            return str(made.experiment_id)

    async def _call(self, act: Callable[[Any], T]) -> T:
        return await asyncio.to_thread(self._blocking, act)

    def _blocking(self, act: Callable[[Any], T]) -> T:
        try:
            return act(self._open())
        except TrackingError:
            raise
        except Exception as error:  # MLflow raises its own, requests' and SQLAlchemy's
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> TrackingError:
        text = self._without_secrets(" ".join(str(error).split()))
        why = next((words for sign, words in PLAIN if sign in text), f"{type(error).__name__}: {_clean(text)}")
        if getattr(error, "error_code", None) in FOR_GOOD:
            return TrackingError(f"MLflow at {self.shown} refused ({why}). Check MLFLOW_TRACKING_URI and its rights.")
        if self.uri.startswith("http"):
            step = "Check MLFLOW_TRACKING_URI and that it runs."
        else:
            step = "Check that folder and the room on its disk."
        return TrackingUnavailable(f"MLflow at {self.shown} did not answer ({why}). {step}")

    def _without_secrets(self, text: str) -> str:
        user = urlsplit(self.uri).netloc.rpartition("@")[0]
        password = user.partition(":")[2]
        for secret in (f"{user}@", password, unquote(password)):
            text = text.replace(secret, "") if len(secret) > 1 else text
        return text

    def _open(self) -> Any:
        with self._first:
            if self._client is None:
                for name, value in ENVIRONMENT.items():
                    os.environ.setdefault(name, value)
                from mlflow import MlflowClient

                if self.uri.startswith("sqlite:///"):
                    with _alone(Path(self.uri.removeprefix("sqlite:///"))):  # both bring the schema up to date
                        client = MlflowClient(tracking_uri=self.uri)
                        client.search_experiments(max_results=1)
                else:  # nothing is asked of a server here: one that hangs must not hold this lock
                    client = MlflowClient(tracking_uri=self.uri)
                self._client = client
            return self._client


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """While this lasts no other process of ours migrates that file: MLflow's migrations break each other."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel gives it back, however we end
        yield


def compared(runs: Sequence[RunSummary]) -> Comparison:
    """Runs side by side. Pure."""
    params = {name: tuple(run.params.get(name) for run in runs) for run in runs for name in run.params}
    metrics = {name: tuple(run.metrics.get(name) for run in runs) for run in runs for name in run.metrics}
    return Comparison(
        runs=tuple(runs),
        params={name: values for name, values in params.items() if len(set(values)) > 1},
        metrics=metrics,
        seconds=tuple(run.seconds for run in runs),
    )


def _of_proposal(client: Any, experiment_id: str, proposal_id: str) -> list[Any]:
    """A proposal's runs, the first made first; every replica agrees on which that is."""
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    return list(client.search_runs([experiment_id], f"tags.`{PROPOSAL_TAG}` = '{proposal_id}'", order_by=order))


def _complete(client: Any, run: Any, params: Mapping[str, str]) -> None:
    """Log the parameters that the run lacks: a crash may have come before them."""
    from mlflow.entities import Param

    lacking = [Param(name, _clean(value)) for name, value in params.items() if name not in run.data.params]
    if lacking:
        client.log_batch(run.info.run_id, params=lacking)


def _by_id(client: Any, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    if not re.fullmatch(r"[0-9A-Za-z]{6,32}", run_id):  # fewer characters name too many runs
        return None
    if len(run_id) == 32:
        try:
            return client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
    experiments = [one.experiment_id for one in client.search_experiments(max_results=100)]
    runs = client.search_runs(experiments, max_results=1000, order_by=["attributes.start_time DESC"])
    return next((run for run in runs if run.info.run_id.startswith(run_id)), None)


def _summary(run: Any, experiment: str, epochs: Sequence[Mapping[str, float]]) -> RunSummary:
    return RunSummary(
        run_id=run.info.run_id,
        name=_clean(run.info.run_name or ""),
        experiment=_clean(experiment),
        status=str(run.info.status),
        params={_clean(name): _clean(value) for name, value in run.data.params.items()},
        metrics={_clean(name): float(value) for name, value in run.data.metrics.items()},
        tags={_clean(name): _clean(value) for name, value in run.data.tags.items() if name.startswith("signalbox.")},
        started_at=_moment(run.info.start_time),
        ended_at=_moment(run.info.end_time),
        epochs=tuple(epochs),
        artifact_uri=_clean(run.info.artifact_uri or ""),
    )


def _epochs(client: Any, run: Any) -> list[Mapping[str, float]]:
    """Rows by epoch, from the metrics that trainers log with step = epoch."""
    rows: dict[int, dict[str, float]] = {}
    for name in EPOCH_METRICS:
        if name in run.data.metrics:
            for point in client.get_metric_history(run.info.run_id, name):
                rows.setdefault(int(point.step), {"epoch": float(point.step)})[name] = float(point.value)
    return [rows[epoch] for epoch in sorted(rows)]


def _moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _clean(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in str(text))[:TEXT_LIMIT]
