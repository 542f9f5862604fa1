"""Label and field selectors: parsed once a request, asked for every object."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.fakes.kubernetes.problems import Json, bad_request

Test = Callable[[Json], bool]
_SET = re.compile(r"^(?P<key>\S+)\s+(?P<op>in|notin)\s*\((?P<values>[^)]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s=!]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!]*)$")
_EXISTS = re.compile(r"^(?P<no>!?)\s*(?P<key>[A-Za-z0-9][-A-Za-z0-9_./]*)$")
FIELDS = {
    "pods": {"metadata.name", "metadata.namespace", "status.phase", "spec.nodeName", "spec.restartPolicy"},
    "events": {
        "metadata.name", "metadata.namespace", "type", "reason", "involvedObject.kind", "involvedObject.name",
        "involvedObject.namespace", "involvedObject.uid", "reportingComponent",
    },
    "jobs": {"metadata.name", "metadata.namespace", "status.successful"},
}  # fmt: skip


def _labels(obj: Json) -> Json:
    return obj["metadata"].get("labels") or {}


def _split(text: str) -> list[str]:
    """At commas outside of brackets."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _requirement(text: str) -> Test:
    if found := _SET.match(text):
        key, wanted = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["op"] == "in":
            return lambda obj: _labels(obj).get(key) in wanted
        return lambda obj: _labels(obj).get(key) not in wanted
    if found := _EQUAL.match(text):
        key, value = found["key"], found["value"]
        if found["op"] == "!=":
            return lambda obj: _labels(obj).get(key) != value
        return lambda obj: _labels(obj).get(key) == value
    if found := _EXISTS.match(text):
        key, absent = found["key"], bool(found["no"])
        return lambda obj: (key not in _labels(obj)) is absent
    raise bad_request(f"unable to parse requirement: found '{text}', expected: ',' or 'end of string'")


def _at(obj: Json, path: str) -> str:
    value: object = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value)


def _field(text: str, plural: str) -> Test:
    found = _EQUAL.match(text)
    if not found:
        raise bad_request(f"invalid field selector {text!r}; can't understand {text!r}")
    path, value, same = found["key"], found["value"], found["op"] != "!="
    if path not in FIELDS.get(plural, {"metadata.name", "metadata.namespace"}):
        raise bad_request(f'Unable to find "{plural}" that match label selector "", field selector "{text}": '
                          f"field label not supported: {path}")  # fmt: skip
    if path == "type" or not path.startswith("metadata"):
        return lambda obj: (_at(obj, path) == value) is same
    return lambda obj: (_at(obj, path) == value) is same


def parse(labels: str, fields: str, plural: str) -> Test | None:
    """All that both selectors ask; None when they ask nothing."""
    tests = [_requirement(part) for part in _split(labels)] + [_field(part, plural) for part in _split(fields)]
    if not tests:
        return None
    return tests[0] if len(tests) == 1 else lambda obj: all(test(obj) for test in tests)
