"""JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and as much of strategic merge as built-in kinds here need."""

from __future__ import annotations

import copy
from typing import Any

from tests.fakes.kubernetes.problems import Json, Problem, bad_request, unsupported_media

JSON_PATCH, MERGE = "application/json-patch+json", "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath",
    "conditions": "type", "ownerReferences": "uid", "imagePullSecrets": "name", "hostAliases": "ip",
}  # fmt: skip
SETS = frozenset({"finalizers"})


def apply(content_type: str, there: Json, patch: Any, *, builtin: bool) -> Json:
    """The object after the patch; 415 for a type that the kind does not take."""
    kind = content_type.split(";")[0].strip()
    if kind == JSON_PATCH:
        if not isinstance(patch, list):
            raise bad_request(
                "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch"
            )
        return json_patch(there, patch)
    if not isinstance(patch, dict):
        raise bad_request(
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        )
    if kind == MERGE:
        return merge(there, patch)
    if kind == STRATEGIC and builtin:
        return strategic(there, patch)
    raise unsupported_media(kind, (JSON_PATCH, MERGE, *([STRATEGIC] if builtin else [])))


def merge(there: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(there) if isinstance(there, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merge(made.get(key), value)
    return made


def strategic(there: Any, patch: Any, key: str = "") -> Any:
    if isinstance(patch, list) and key in MERGE_KEYS:
        return _merge_list(there or [], patch, MERGE_KEYS[key])
    if isinstance(patch, list) and key in SETS:
        return [*(there or []), *(item for item in patch if item not in (there or []))]
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    made = dict(there) if isinstance(there, dict) else {}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None or (isinstance(value, dict) and value.get("$patch") == "delete"):
            made.pop(name, None)
        else:
            made[name] = strategic(made.get(name), value, name)
    return made


def _merge_list(there: list[Any], patch: list[Any], by: str) -> list[Any]:
    made = list(there)
    for item in patch:
        if not isinstance(item, dict) or by not in item:
            if isinstance(item, dict) and item.get("$patch") == "replace":
                made = []
                continue
            raise bad_request(f"map: {item} does not contain declared merge key: {by}")
        at = next((index for index, one in enumerate(made) if one.get(by) == item[by]), None)
        if item.get("$patch") == "delete":
            made = [one for one in made if one.get(by) != item[by]]
        elif at is None:
            made.append(strategic({}, item))
        else:
            made[at] = strategic(made[at], item)
    return made


def _failed(why: str) -> Problem:
    return Problem(422, "Invalid", f"the server rejected our request due to an error in our request: {why}")


def json_patch(there: Json, steps: list[Any]) -> Json:
    made: Any = copy.deepcopy(there)
    for step in steps:
        try:
            made = _step(made, step)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise _failed(f"{step.get('op') if isinstance(step, dict) else step}: {error}") from None
    return dict(made)


def _step(doc: Any, step: Json) -> Any:
    op, path = step["op"], _pointer(step["path"])
    if op == "test":
        if _get(doc, path) != step.get("value"):
            raise ValueError(f"testing value {step['path']} failed")
        return doc
    if op == "remove":
        return _change(doc, path, None, "remove")
    if op in ("move", "copy"):
        value = copy.deepcopy(_get(doc, _pointer(step["from"])))
        doc = _change(doc, _pointer(step["from"]), None, "remove") if op == "move" else doc
        return _change(doc, path, value, "add")
    if op not in ("add", "replace"):
        raise ValueError(f"unexpected kind: {op}")
    return _change(doc, path, copy.deepcopy(step["value"]), op)


def _pointer(text: str) -> list[str]:
    if text == "":
        return []
    if not text.startswith("/"):
        raise ValueError(f"bad pointer {text}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _get(doc: Any, path: list[str]) -> Any:
    for part in path:
        doc = doc[int(part)] if isinstance(doc, list) else doc[part]
    return doc


def _change(doc: Any, path: list[str], value: Any, op: str) -> Any:
    if not path:
        return value
    parent, last = _get(doc, path[:-1]), path[-1]
    if isinstance(parent, list):
        if op == "add":
            parent.insert(len(parent) if last == "-" else int(last), value)
        elif op == "remove":
            del parent[int(last)]
        else:
            parent[int(last)] = value
    elif op == "remove" or (op == "replace" and last not in parent):
        del parent[last]
        if op == "replace":
            parent[last] = value
    else:
        parent[last] = value
    return doc
