"""Lists of conditions, changed as the cluster's parts change them: the time moves only when the status does."""

from __future__ import annotations

from typing import Any

from tests.fakes.kubernetes.problems import Json


def find(obj: Json, type_: str) -> Json | None:
    """The object's condition of that type, whatever its status."""
    return next((one for one in (obj.get("status") or {}).get("conditions") or [] if one["type"] == type_), None)


def holds(obj: Json, type_: str) -> bool:
    found = find(obj, type_)
    return found is not None and found["status"] == "True"


def put(there: list[Json] | None, type_: str, status: str, now: str, **more: Any) -> list[Json]:
    """The list with this condition in it; `lastTransitionTime` stays if the status is as it was."""
    made = {"type": type_, "status": status, "lastTransitionTime": now}
    made |= {key: value for key, value in more.items() if value is not None}
    result, found = [], False
    for one in there or []:
        if one["type"] == type_:
            found = True
            result.append(made | {"lastTransitionTime": one["lastTransitionTime"]} if one["status"] == status else made)
        else:
            result.append(one)
    return result if found else [*result, made]
