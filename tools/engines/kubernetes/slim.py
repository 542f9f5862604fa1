"""What is kept of an object: the fields that are read, and equal parts once. A cluster has ten thousand of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

SHARED = 1024  # different templates that are remembered at a time

_METADATA = ("name", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "annotations")
_SPEC = ("suspend", "activeDeadlineSeconds", "runtimeRef", "nodeName")
_STATUS = ("phase", "reason", "message")
_ELSEWHERE = ("apiVersion", "kind", "metadata", "spec", "status")
_TWICE = frozenset({"controller-uid", "batch.kubernetes.io/controller-uid"})  # labels that repeat the owner's uid
_BEFORE_READY = frozenset({"Initialized", "PodReadyToStartContainers", "ContainersReady"})  # no news once they hold

Raw = dict[str, Any]


def slim(obj: Raw) -> Raw:
    """What `reading` and `waiting` look at, as values that nobody changes."""
    made: Raw = _interned({key: value for key, value in obj.items() if key not in _ELSEWHERE})
    made["metadata"] = _interned(_metadata(obj["metadata"]))
    if "spec" in obj:
        made["spec"] = _spec(obj["spec"])
    if "status" in obj:
        made["status"] = _interned(_status(obj["status"]))
    return made


def _metadata(meta: Raw) -> Raw:
    made = _only(meta, _METADATA)
    if "labels" in meta:
        made["labels"] = {key: value for key, value in (meta["labels"] or {}).items() if key not in _TWICE}
    if "ownerReferences" in meta:
        made["ownerReferences"] = [_only(owner, ("kind", "name", "uid")) for owner in meta["ownerReferences"] or ()]
    return made


def _spec(spec: Raw) -> Raw:
    made: Raw = _interned(_only(spec, _SPEC))
    if "containers" in spec:
        made["containers"] = _shared([_only(one, ("name", "image")) for one in spec["containers"]])
    inner = (spec.get("template") or {}).get("spec") or {}
    if "containers" in inner:
        limits = [_only(one, ("name", "image", "resources")) for one in inner["containers"]]
        volumes = [_only(one, ("name", "persistentVolumeClaim")) for one in inner.get("volumes") or ()]
        made["template"] = _shared({"spec": {"containers": limits, "volumes": volumes}})
    if "trainer" in spec:
        made["trainer"] = _shared(_only(spec["trainer"], ("resourcesPerNode", "numNodes")))
    return made


def _status(status: Raw) -> Raw:
    made = _only(status, _STATUS)
    if "conditions" in status:
        made["conditions"] = [
            {key: value for key, value in one.items() if key not in ("lastProbeTime", "observedGeneration")}
            for one in status["conditions"] or ()
            if one.get("type") not in _BEFORE_READY or one.get("status") != "True"
        ]
    if "containerStatuses" in status:
        made["containerStatuses"] = [_only(one, ("name", "image", "state")) for one in status["containerStatuses"]]
    return made


def _only(values: Raw, keys: Iterable[str]) -> Raw:
    return {key: values[key] for key in keys if key in values}


def _shared(value: Any) -> Any:
    return _same(json.dumps(value))


@lru_cache(maxsize=SHARED)
def _same(text: str) -> Any:
    return _interned(json.loads(text))


def _interned(value: Any) -> Any:
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, dict):
        return {sys.intern(key): _interned(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_interned(each) for each in value]
    return value
