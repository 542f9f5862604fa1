"""Events as the cluster's own parts write them: one object for each (about, reason, message), counted when repeated."""

from __future__ import annotations

import uuid

from tests.fakes.kubernetes.kinds import EVENTS
from tests.fakes.kubernetes.problems import Json
from tests.fakes.kubernetes.store import Store


class Recorder:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.known: dict[tuple[str, str, str], tuple[str, str]] = {}  # about, reason, message → where it is

    def __call__(self, about: Json, type_: str, reason: str, message: str, *, source: str) -> Json:
        """Writes or counts up one event; `type_` is Normal or Warning."""
        meta, now = about["metadata"], self.store.now()
        key = (meta["uid"], reason, message)
        there = self.store.find(EVENTS, *self.known[key]) if key in self.known else None
        if there is not None:
            again = there.obj | {"count": there.obj["count"] + 1, "lastTimestamp": now}
            return self.store.replace(EVENTS, meta["namespace"], again).obj
        name = f"{meta['name']}.{uuid.uuid4().hex[:16]}"
        self.known[key] = (meta["namespace"], name)
        involved = {"kind": about["kind"], "apiVersion": about["apiVersion"], "namespace": meta["namespace"]}
        involved |= {"name": meta["name"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        event = {
            "metadata": {"name": name}, "involvedObject": involved, "type": type_, "reason": reason,
            "message": message, "source": {"component": source}, "reportingComponent": source,
            "reportingInstance": "", "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        }  # fmt: skip
        return self.store.add(EVENTS, meta["namespace"], event).obj
