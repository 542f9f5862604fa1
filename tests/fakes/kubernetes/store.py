"""What the fake API server remembers: immutable entries with their bytes, one version, a window of events.

Keys are kept sorted for each kind, so that a page of a list costs what the page holds and not what the kind holds; an
entry's bytes are made once, when it is written. Whoever is in `listeners` is told of every write at once: an index,
or a controller, which must not write from there but note what to do.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.fakes.kubernetes.kinds import Kind
from tests.fakes.kubernetes.problems import Json, already_exists, not_found

Key = tuple[str, str]  # namespace, name


def stamp(when: datetime) -> str:
    """A time as the API writes it, to the second."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, kw_only=True)
class Entry:
    obj: Json
    version: int
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Change:
    version: int
    type: str
    kind: Kind
    namespace: str
    entry: Entry
    before: Entry | None


@dataclass
class Store:
    version: int = 1000
    oldest: int = 1000  # watches from before this are gone
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    objects: dict[Kind, dict[Key, Entry]] = field(default_factory=dict)
    keys: dict[Kind, list[Key]] = field(default_factory=dict)
    history: deque[Change] = field(default_factory=lambda: deque(maxlen=20000))
    watchers: dict[asyncio.Queue[Change | None], Kind] = field(default_factory=dict)
    listeners: list[Callable[[Change], None]] = field(default_factory=list)

    def now(self) -> str:
        return stamp(self.clock())

    def find(self, kind: Kind, namespace: str, name: str) -> Entry | None:
        return self.objects.get(kind, {}).get((namespace, name))

    def get(self, kind: Kind, namespace: str, name: str) -> Entry:
        found = self.find(kind, namespace, name)
        if found is None:
            raise not_found(kind.group, kind.plural, name)
        return found

    def scan(self, kind: Kind, namespace: str = "", after: Key | None = None) -> Iterator[tuple[Key, Entry]]:
        """Entries in the order of their keys: of one namespace or of all, from the one after `after`."""
        keys, there = self.keys.get(kind, []), self.objects.get(kind, {})
        at = bisect_left(keys, (namespace, ""))
        if after is not None:
            at = max(at, bisect_left(keys, (after[0], after[1] + "\0")))
        while at < len(keys) and (not namespace or keys[at][0] == namespace):
            yield keys[at], there[keys[at]]
            at += 1

    def add(self, kind: Kind, namespace: str, obj: Json, *, complete: Callable[[Json], Json] | None = None) -> Entry:
        """Born: `complete` fills in what depends on the uid."""
        name = obj["metadata"]["name"]
        if self.find(kind, namespace, name):
            raise already_exists(kind.group, kind.plural, name)
        born = {"uid": str(uuid.uuid4()), "creationTimestamp": self.now()}
        meta = obj["metadata"] | born | ({"namespace": namespace} if namespace else {})
        made = obj | {"metadata": meta}
        return self._put("ADDED", kind, namespace, complete(made) if complete else made, None)

    def replace(self, kind: Kind, namespace: str, obj: Json) -> Entry:
        """Written if it differs; one that is being deleted goes when nothing holds it any more."""
        before, meta = self.get(kind, namespace, obj["metadata"]["name"]), obj["metadata"]
        if before.obj == obj:
            return before
        held = meta.get("finalizers") or (kind.graceful and meta.get("deletionGracePeriodSeconds") != 0)
        if "deletionTimestamp" in meta and not held:
            return self._put("DELETED", kind, namespace, obj, before)
        return self._put("MODIFIED", kind, namespace, obj, before)

    def remove(self, kind: Kind, namespace: str, name: str) -> Entry:
        """Gone, or, where it has finalizers, marked and gone when the last of them is taken off."""
        before = self.get(kind, namespace, name)
        if not before.obj["metadata"].get("finalizers"):
            return self._put("DELETED", kind, namespace, before.obj, before)
        marks = {"deletionTimestamp": self.now(), "deletionGracePeriodSeconds": 0}
        return self.replace(kind, namespace, before.obj | {"metadata": before.obj["metadata"] | marks})

    def compact(self) -> None:
        self.history.clear()
        self.oldest = self.version

    def _put(self, type_: str, kind: Kind, namespace: str, obj: Json, before: Entry | None) -> Entry:
        self.version += 1
        obj = obj | {"metadata": obj["metadata"] | {"resourceVersion": str(self.version)}}
        obj = {"kind": kind.kind, "apiVersion": kind.api_version} | obj
        entry = Entry(obj=obj, version=self.version, body=json.dumps(obj, separators=(",", ":")).encode())
        there, keys = self.objects.setdefault(kind, {}), self.keys.setdefault(kind, [])
        key = (namespace, obj["metadata"]["name"])
        if type_ == "DELETED":
            del there[key]
            del keys[bisect_left(keys, key)]
        else:
            there[key] = entry
        if type_ == "ADDED":
            insort(keys, key)
        change = Change(version=self.version, type=type_, kind=kind, namespace=namespace, entry=entry, before=before)
        if len(self.history) == self.history.maxlen:
            self.oldest = self.history[0].version
        self.history.append(change)
        for queue, wanted in self.watchers.items():
            if wanted is kind:
                queue.put_nowait(change)
        for listener in self.listeners:
            listener(change)
        return entry
