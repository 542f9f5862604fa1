"""What the cluster holds of ours, kept up to date by one list and one watch stream a kind.

A stream that ends is taken up where it ended; one that fails waits, longer each time, with jitter; a version that is
gone (410) and ten minutes are answered by a new list. Nothing here is trusted for ever: `fresh` says whether all kinds
were heard of lately. Where watches fail and lists do not, lists are
taken instead, as seldom as the wait between two tries. Of each object only what somebody reads is kept: what a real
cluster notes beside it (who owns which field) is as large again, and ten thousand finished trainings stay for a day.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tools.engines.base import EngineUnavailable
from tools.engines.kubernetes.connection import Connection, Problem, Unreachable
from tools.engines.kubernetes.forms import JOB, JOBSET, TRAIN_JOB
from tools.engines.kubernetes.slim import slim
from tools.engines.kubernetes.waiting import GONE_AT, clean

log = logging.getLogger(__name__)

PAGE = 500  # objects of one answer
WATCH_SECONDS = 240  # the server ends the stream after this long
CLIENT_SECONDS = WATCH_SECONDS + 30.0  # and we, should it not
RELIST_SECONDS = 600.0
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 15.0
SHORT_SECONDS = 5.0  # a stream that ends sooner counts as a failure: a server that closes at once is not stormed
UNMARKED_SECONDS = 60  # of a stream whose time the server does not mark: its silence must not look like its death
QUIET_SECONDS = 90.0  # a stream that says nothing for so long is dead: a server that is well marks time every minute
STALE_SECONDS = QUIET_SECONDS + LONGEST_WAIT_SECONDS + 30.0
GRACE_SECONDS = 60.0  # a stream may fail for so long until what it told is too old
GONE_COUNTS = 3  # failures, that a version from a list is gone at once: to list is dear
BLIND = 3  # failures of a watch, until a list is tried in its place
FIRST_LOOK_SECONDS = 45.0  # that who looks waits for the first lists
ABSENT_SECONDS = 60.0  # until a kind that is not served is asked for again: it may be installed
KEPT_SECONDS = 3600.0  # that the last state of a deleted object is remembered

Raw = dict[str, Any]


class _Gone(Exception):
    """The version to go on from is not there any more."""


@dataclass(eq=False)
class Kind:
    """One kind, as it is now: `objects` by name, and by uid in groups (a Job's pods; those deleted lately too)."""

    path: str
    labels: str = ""
    fields: str = ""
    marked: bool = True  # whether the server marks time in its streams (bookmarks)
    group: Callable[[Raw], str | None] = lambda _: None
    optional: bool = False  # a cluster may not know of it, or not let us see it
    served: bool = True
    objects: dict[str, Raw] = field(default_factory=dict)
    version: str = ""
    listed_at: float = float("-inf")
    heard_at: float = float("-inf")
    failures: int = 0
    failing_since: float = float("inf")
    error: Problem | Unreachable | EngineUnavailable | None = None  # of the last try, while it fails
    ready: asyncio.Event = field(default_factory=asyncio.Event)  # listed once
    tried: asyncio.Event = field(default_factory=asyncio.Event)  # or at least asked for
    _groups: dict[str, dict[str, Raw]] = field(default_factory=dict)
    _deleted: dict[str, tuple[float, str]] = field(default_factory=dict)  # uid → when, of which group

    @property
    def query(self) -> dict[str, Any]:
        asked = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {name: value for name, value in asked.items() if value}

    @property
    def fresh(self) -> bool:
        now = time.monotonic()
        return self.ready.is_set() and now - self.failing_since < GRACE_SECONDS and now - self.heard_at < STALE_SECONDS

    def heard(self) -> None:
        self.heard_at, self.failures, self.failing_since, self.error = time.monotonic(), 0, float("inf"), None
        self.tried.set()

    def failed(self, error: Problem | Unreachable | EngineUnavailable | None = None) -> None:
        self.failures += 1
        self.error = error
        self.failing_since = min(self.failing_since, time.monotonic())
        self.tried.set()

    def absent(self) -> None:
        """The cluster has no such kind, and so nothing of it."""
        self.replace((), "")
        self.served = False
        self.heard()
        self.ready.set()

    def of(self, group: str) -> list[Raw]:
        return list(self._groups.get(group, {}).values())

    def put(self, obj: Raw) -> None:
        """Unless a newer one is here: an answer to a request of ours overtakes the stream."""
        there = self.objects.get(obj["metadata"]["name"])
        if there is not None and _after(there, str(obj["metadata"].get("resourceVersion") or "")):
            return
        obj = slim(obj)
        self.objects[obj["metadata"]["name"]] = obj
        if key := self.group(obj):
            self._groups.setdefault(key, {})[str(obj["metadata"].get("uid"))] = obj

    def remove(self, obj: Raw) -> None:
        uid = str(obj["metadata"].get("uid"))
        there = self.objects.get(obj["metadata"]["name"])
        if there is not None and str(there["metadata"].get("uid")) == uid:
            del self.objects[obj["metadata"]["name"]]
        if key := self.group(obj):
            self._groups.setdefault(key, {})[uid] = {**slim(obj), GONE_AT: datetime.now(UTC).isoformat()}
            self._deleted[uid] = (time.monotonic(), key)

    def replace(self, listed: Iterable[Raw], version: str) -> None:
        """A whole list: what is not in it is gone, unless it came into being after it."""
        found = {obj["metadata"]["name"]: obj for obj in listed}
        for obj in list(self.objects.values()):
            now = found.get(obj["metadata"]["name"])
            same = now is not None and now["metadata"].get("uid") == obj["metadata"].get("uid")
            if not same and not _after(obj, version):
                self.remove(obj)
        for obj in found.values():
            self.put(obj)
        self.version, self.listed_at = version, time.monotonic()
        self._forget()

    def compared(self, group: str, listed: Iterable[Raw], version: str) -> list[Raw]:
        """A group as this list of it has it, and those that are gone: remembered, and not in the list any more."""
        there = {str(obj["metadata"].get("uid")): obj for obj in listed}
        absent = [obj for obj in self.of(group) if str(obj["metadata"].get("uid")) not in there]
        for obj in absent:
            if GONE_AT not in obj and not _after(obj, version):
                self.remove(obj)
        return [*there.values(), *(obj for obj in self.of(group) if str(obj["metadata"].get("uid")) not in there)]

    def _forget(self) -> None:
        oldest = time.monotonic() - KEPT_SECONDS
        for uid, (at, key) in list(self._deleted.items()):
            if at < oldest:
                del self._deleted[uid]
                self._groups[key].pop(uid, None)
                if not self._groups[key]:
                    del self._groups[key]


class Reflector:
    """Started by the first look; its tasks end with `aclose`."""

    def __init__(self, connection: Connection, namespace: str, selector: str) -> None:
        self._connection = connection
        core = f"/api/v1/namespaces/{namespace}"
        self.jobs = Kind(path=JOB.of(namespace), labels=selector, group=_name)
        self.pods = Kind(path=f"{core}/pods", labels=selector, group=JOB.name_in)
        self.events = Kind(path=f"{core}/events", fields="type=Warning", marked=False)  # read from etcd, past the cache
        self.train_jobs = Kind(path=TRAIN_JOB.of(namespace), labels=selector, group=_name, optional=True)
        self.train_pods = Kind(path=f"{core}/pods", labels=JOBSET, group=TRAIN_JOB.name_in)  # once TrainJobs are served
        self._kinds = [self.jobs, self.pods, self.events, self.train_jobs]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        if not self._tasks:
            self._tasks = [self._following(kind) for kind in self._kinds]

    def _following(self, kind: Kind) -> asyncio.Task[None]:
        return asyncio.create_task(self._follow(kind), name=f"watch {kind.path}")

    async def aclose(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ready(self) -> None:
        """Wait until every kind was listed once."""
        self.start()
        for kind in self._kinds:
            await kind.ready.wait()

    async def begun(self) -> None:
        """Wait until every kind was listed once. Raises why, where one cannot be and nothing fresh is known: a thousand
        trainings that ask by themselves would get no better answer, and would not let an API server come back."""
        self.start()
        if self._tasks and not all(kind.tried.is_set() for kind in self._kinds):
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LOOK_SECONDS):
                    for kind in self._kinds:  # one more may come while these are waited for
                        await kind.tried.wait()
        blind = [kind.error for kind in self._kinds if kind.error is not None and not kind.fresh]
        if self._tasks and blind:
            raise blind[0]

    @property
    def fresh(self) -> bool:
        """Whether what is here may be told: every kind was listed, none fails for long, all were heard of lately."""
        return all(kind.fresh for kind in self._kinds)

    async def _follow(self, kind: Kind) -> None:
        short = 0
        while True:
            began, asked = time.monotonic(), 0.0
            try:
                if not kind.version or began - kind.listed_at >= RELIST_SECONDS:
                    await self._list(kind)
                await self._watch(kind)
            except _Gone:
                kind.version = ""
                short += GONE_COUNTS if began - kind.listed_at < SHORT_SECONDS else 0
            except (Problem, Unreachable, EngineUnavailable) as error:
                if kind.optional and isinstance(error, Problem) and error.code in (403, 404):
                    kind.absent()
                    await asyncio.sleep(ABSENT_SECONDS)
                    continue
                kind.failed(error)
                if kind.failures >= BLIND or (isinstance(error, Problem) and error.code == 410):
                    kind.version = ""
                asked = error.retry_after if isinstance(error, Problem) else 0.0
                log.warning("%s: %s", kind.path, clean(error))
            except Exception:  # a bug here must not leave the engine blind for good
                kind.failed()
                kind.version = ""
                log.exception("%s: the stream failed", kind.path)
            short = short + 1 if time.monotonic() - began < SHORT_SECONDS else 0
            if short:
                await asyncio.sleep(asked + _wait(max(short, kind.failures)))

    async def _list(self, kind: Kind) -> None:
        """Page by page."""
        found: list[Raw] = []
        query: dict[str, Any] = kind.query | {"limit": PAGE}
        while True:
            page = await self._connection.page(kind.path, **query)
            found += map(slim, page.get("items") or ())
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                break
            query["continue"] = meta["continue"]
        kind.replace(found, str(meta.get("resourceVersion") or ""))
        kind.served = True
        if kind is self.train_jobs and self.train_pods not in self._kinds:
            self._kinds.append(self.train_pods)
            self._tasks.append(self._following(self.train_pods))
        kind.heard()
        kind.ready.set()

    async def _watch(self, kind: Kind) -> None:
        """Until the server ends the stream."""
        left = RELIST_SECONDS - (time.monotonic() - kind.listed_at)
        longest = WATCH_SECONDS if kind.marked else UNMARKED_SECONDS
        query = kind.query | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": kind.version,
            "timeoutSeconds": max(1, min(longest, int(left))),
        }
        async with self._connection.stream(kind.path, CLIENT_SECONDS, **query) as lines:
            kind.heard()
            async for event in _events(lines):
                _apply(kind, event)
                kind.heard()


async def _events(lines: AsyncIterator[bytes]) -> AsyncIterator[Raw]:
    """What the stream says, until it ends; `Unreachable` when it says nothing for too long."""
    while True:
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                line = await anext(lines, None)
        except TimeoutError as error:
            raise Unreachable(f"nothing was heard for {QUIET_SECONDS:.0f} s") from error
        if line is None:
            return
        if line.strip():
            yield json.loads(line)


def _apply(kind: Kind, event: Raw) -> None:
    obj = event["object"]
    match event["type"]:
        case "ADDED" | "MODIFIED":
            kind.put(obj)
        case "DELETED":
            kind.remove(obj)
        case "ERROR":
            if obj.get("code") == 410:
                raise _Gone
            raise Problem(int(obj.get("code") or 500), str(obj.get("reason") or ""), str(obj.get("message") or ""))
        case _:  # a bookmark carries the version alone
            pass
    with suppress(KeyError):
        kind.version = str(obj["metadata"]["resourceVersion"])


def _name(obj: Raw) -> str:
    return str(obj["metadata"]["name"])


def _wait(failures: int) -> float:
    """Longer each time, and never the same for two."""
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(failures, 16))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret


def _after(obj: Raw, version: str) -> bool:
    """Versions are numbers that grow (an API promise since 1.35, and so before)."""
    own = str(obj["metadata"].get("resourceVersion") or "")
    return own.isdigit() and version.isdigit() and int(own) > int(version)
