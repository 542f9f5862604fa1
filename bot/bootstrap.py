"""The one composition root: wires every room, and lets every port be replaced by an argument.

`opened` answers an `App` whose store is open and migrated. Heavy rooms (agent, MLflow, matplotlib) are imported where
they are first used, so that reading commands start at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import sqlalchemy as sa

from bot.approvals.deciding import Deciding
from bot.approvals.pricing import Pricing
from bot.approvals.proposing import Proposing
from bot.cards import Cards
from bot.core.errors import Misconfigured
from bot.curves import Curves
from bot.desk import Desk
from bot.outbox import Notifier
from bot.policies import Policies, PolicyFile, read_yaml
from bot.reconciler import Reconciler
from bot.runs import TrackedRuns
from bot.settings import SOURCE, Settings
from bot.store.database import Database
from bot.store.store import Store
from tools.engines.base import Engine
from tools.engines.gpus import detect
from tools.engines.local import LocalEngine
from tools.rates import RateCard, RatesError
from tools.tracking import Tracking

if TYPE_CHECKING:
    from bot.agent.assistant import Assistant
    from tools.engines.kubernetes.engine import KubernetesEngine

POD_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True, kw_only=True)
class App:
    """Everything, wired. Surfaces take what they need from here."""

    settings: Settings
    store: Store
    policies: Policies
    engine: Engine
    tracking: Tracking
    curves: Curves
    pricing: Pricing
    cards: Cards
    desk: Desk
    deciding: Deciding
    proposing: Proposing
    wake: Wake

    def reconciler(self, notifier: Notifier) -> Reconciler:
        """The reconciler that tells this surface; from now on commits wake it."""
        runs = TrackedRuns(self.tracking)
        start_within = timedelta(minutes=self.settings.start_minutes)
        made = Reconciler(self.store, self.engine, runs, self.pricing, self.policies, notifier, start_within)
        self.wake.connect(made.wake)
        return made

    @asynccontextmanager
    async def assistant(self) -> AsyncIterator[Assistant]:
        """The agent: the language model if there is a key, else the planner. Importing it takes a second or two."""
        await asyncio.to_thread(importlib.import_module, "bot.agent.assistant")
        from bot.agent.assistant import Assistant
        from bot.agent.checkpoints import checkpoints
        from bot.agent.model import chat_model
        from bot.agent.planner import Planner
        from tools.toolkit import build_toolkit

        settings, planner = self.settings, Planner()
        model = None
        if settings.openai_api_key is not None:
            model = chat_model(
                settings.openai_api_key,
                settings.openai_base_url,
                settings.openai_model,
                settings.model_timeout_seconds,
            )
        async with checkpoints(settings.conversations) as saver:
            yield Assistant(
                model=model or planner,
                fallback=planner if model else None,
                tools=build_toolkit(self.desk),
                checkpointer=saver,
                situation=self.desk.situation,
                deadline_s=settings.model_timeout_seconds,
            )


class Wake:
    """Lets use cases wake a reconciler that is made after them."""

    def __init__(self) -> None:
        self._listener: Callable[[], None] | None = None

    def connect(self, listener: Callable[[], None]) -> None:
        self._listener = listener

    def __call__(self) -> None:
        if self._listener is not None:
            self._listener()


@asynccontextmanager
async def opened(
    settings: Settings,
    *,
    clock: Callable[[], datetime] | None = None,
    engine: Engine | None = None,
    tracking: Tracking | None = None,
    policies: Policies | None = None,
) -> AsyncIterator[App]:
    """The wired app over an open store; closed again at the end."""
    policies = policies or PolicyFile(settings.policy_file)
    rates = load_rates(settings.rates_file)
    tracking = tracking or Tracking(settings.tracking_uri, settings.artifact_root)
    database = Database(settings.database)
    async with AsyncExitStack() as stack:
        engine = engine if engine else await stack.enter_async_context(chosen_engine(settings))
        await database.open()
        stack.push_async_callback(database.close)
        store = Store(database, clock)
        pricing = Pricing(store, engine, rates, settings.zone)
        proposing = Proposing(store, pricing, policies)
        cards = Cards(store, pricing, policies)
        curves = Curves(settings.folder / "curves")
        wake = Wake()
        yield App(
            settings=settings,
            store=store,
            policies=policies,
            engine=engine,
            tracking=tracking,
            curves=curves,
            pricing=pricing,
            cards=cards,
            desk=Desk(
                store=store,
                cards=cards,
                pricing=pricing,
                policies=policies,
                proposing=proposing,
                engine=engine,
                tracking=tracking,
                curves=curves,
            ),
            deciding=Deciding(store, pricing, policies, wake),
            proposing=proposing,
            wake=wake,
        )


@asynccontextmanager
async def chosen_engine(settings: Settings) -> AsyncIterator[Engine]:
    """The engine of SIGNALBOX_ENGINE, closed at the end. The cluster's client is imported only where it is used."""
    if settings.engine == "local" or (settings.engine == "auto" and not _credentials(settings)):
        yield local_engine(settings)
        return
    await asyncio.to_thread(importlib.import_module, "tools.engines.kubernetes.engine")
    async with cluster_engine(settings) as engine:
        yield engine


def _credentials(settings: Settings) -> bool:
    """Whether there are any for a cluster."""
    if settings.kubeconfig is None:
        return POD_TOKEN.exists()
    return any(Path(path).expanduser().exists() for path in settings.kubeconfig.split(os.pathsep) if path)


def cluster_engine(settings: Settings) -> KubernetesEngine:
    """A cluster as an engine. Nothing is asked of it before it is needed."""
    from tools.engines.kubernetes.engine import KubernetesEngine
    from tools.engines.kubernetes.manifest import ClusterSettings

    return KubernetesEngine(
        ClusterSettings(
            namespace=settings.namespace,
            image_cpu=settings.image_cpu,
            image_gpu=settings.image_gpu,
            image_pull_policy=settings.image_pull_policy,
            cpu_cores=settings.cluster_cpu_cores,
            memory_gib=settings.cluster_memory_gib,
            ephemeral_storage=f"{settings.cluster_storage_gib}Gi",
            gpu_product=settings.gpu_product,
            data_claim=settings.data_claim,
            output_claim=settings.output_claim,
            ttl_seconds=settings.cluster_keep_hours * 3600,
            queue=settings.queue,
            runtime=settings.runtime,
            auto=settings.engine == "auto",
            tracking_uri=settings.tracking_uri,
        ),
        kubeconfig=settings.kubeconfig,
        max_jobs=settings.cluster_max_jobs,
    )


def local_engine(settings: Settings) -> LocalEngine:
    """This machine as an engine."""
    count, product = detect() if settings.local_gpus is None else (settings.local_gpus, None)
    return LocalEngine(
        home=settings.folder,
        python=str(settings.trainer_python.expanduser().absolute()),
        source=SOURCE,
        data_dir=settings.data_folder,
        cpu_cores=settings.local_cpu_cores,
        gpus=count,
        gpu_product=product,
        max_jobs=settings.local_max_jobs,
        grace_seconds=settings.local_grace_seconds,
    )


def load_rates(path: Path) -> RateCard:
    """The rates file, or `Misconfigured` with the place that is wrong."""
    try:
        return RateCard.parse(read_yaml(path, "SIGNALBOX_RATES_FILE"))
    except RatesError as error:
        raise Misconfigured(f"{path}: {error}") from error


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """One bot at a time works on a home, and on a SQLite file: a second would tell the same things."""
    with ExitStack() as locks:
        locks.enter_context(_locked(settings.folder / "bot.lock", settings.folder, "SIGNALBOX_HOME"))
        path = _database_file(settings)
        if path is not None:
            locks.enter_context(_locked(path.with_name(f"{path.name}.lock"), path, "DATABASE_URL"))
        yield


def _database_file(settings: Settings) -> Path | None:
    """SQLite's; None where there is none, or an address that will be refused."""
    try:
        url = sa.make_url(settings.database)
    except sa.exc.ArgumentError:
        return None
    named = settings.sqlite and url.database and not url.database.startswith((":memory:", "file:"))
    return Path(url.database).resolve() if named and url.database else None


@contextmanager
def _locked(path: Path, what: Path, setting: str) -> Iterator[None]:
    """The kernel frees it, even on SIGKILL."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle: TextIO = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"{setting}: {path.parent} cannot be written ({error.strerror}).") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            other = handle.read().strip() or "unknown"
            raise Misconfigured(
                f"Another Signalbox (process {other}) works on {what}. End it, or set {setting} to another."
            ) from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
