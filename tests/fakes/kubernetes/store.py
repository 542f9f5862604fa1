"""What the fake API server remembers: immutable entries with their bytes, one version, a window of events."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.fakes.kubernetes.problems import Json, already_exists, not_found


@dataclass(frozen=True, kw_only=True)
class Kind:
    group: str
    plural: str
    kind: str
    model: str | None

    @property
    def api_version(self) -> str:
        return f"{self.group}/v1" if self.group else "v1"


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
    objects: dict[Kind, dict[tuple[str, str], Entry]] = field(default_factory=dict)
    history: deque[Change] = field(default_factory=lambda: deque(maxlen=20000))
    watchers: set[asyncio.Queue[Change]] = field(default_factory=set)

    def get(self, kind: Kind, namespace: str, name: str) -> Entry:
        found = self.objects.get(kind, {}).get((namespace, name))
        if found is None:
            raise not_found(kind.group, kind.plural, name)
        return found

    def add(self, kind: Kind, namespace: str, obj: Json) -> Entry:
        name = obj["metadata"]["name"]
        if (namespace, name) in self.objects.get(kind, {}):
            raise already_exists(kind.group, kind.plural, name)
        born = {"uid": str(uuid.uuid4()), "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        meta = obj["metadata"] | born | ({"namespace": namespace} if namespace else {})
        return self._put("ADDED", kind, namespace, obj | {"metadata": meta}, None)

    def replace(self, kind: Kind, namespace: str, obj: Json) -> Entry:
        before = self.get(kind, namespace, obj["metadata"]["name"])
        return before if before.obj == obj else self._put("MODIFIED", kind, namespace, obj, before)

    def remove(self, kind: Kind, namespace: str, name: str) -> Entry:
        before = self.get(kind, namespace, name)
        return self._put("DELETED", kind, namespace, before.obj, before)

    def compact(self) -> None:
        self.history.clear()
        self.oldest = self.version

    def _put(self, type_: str, kind: Kind, namespace: str, obj: Json, before: Entry | None) -> Entry:
        self.version += 1
        obj = obj | {"metadata": obj["metadata"] | {"resourceVersion": str(self.version)}}
        obj = {"kind": kind.kind, "apiVersion": kind.api_version} | obj
        entry = Entry(obj=obj, version=self.version, body=json.dumps(obj, separators=(",", ":")).encode())
        there = self.objects.setdefault(kind, {})
        if type_ == "DELETED":
            del there[namespace, obj["metadata"]["name"]]
        else:
            there[namespace, obj["metadata"]["name"]] = entry
        change = Change(version=self.version, type=type_, kind=kind, namespace=namespace, entry=entry, before=before)
        if len(self.history) == self.history.maxlen:
            self.oldest = self.history[0].version
        self.history.append(change)
        for queue in self.watchers:
            queue.put_nowait(change)
        return entry
