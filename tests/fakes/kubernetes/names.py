"""Names, labels and annotations by RFC 1123 and the qualified-name rules, in the API server's own words."""

from __future__ import annotations

import re
from typing import Any

from tests.fakes.kubernetes.problems import Cause, Json, wrong

LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
MOST_ANNOTATIONS = 256 * 1024  # bytes, keys and values together

LABEL_WHY = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN_WHY = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
VALUE_WHY = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
KEY_WHY = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


def label(field: str, value: str) -> list[Cause]:
    """A DNS label: containers, volumes."""
    if len(value) > 63:
        return [wrong(field, value, "must be no more than 63 bytes")]
    return [] if LABEL.match(value) else [wrong(field, value, LABEL_WHY)]


def subdomain(field: str, value: str) -> list[Cause]:
    """A DNS subdomain: most objects."""
    if len(value) > 253:
        return [wrong(field, value, "must be no more than 253 bytes")]
    return [] if SUBDOMAIN.match(value) else [wrong(field, value, SUBDOMAIN_WHY)]


def key(field: str, value: str) -> list[Cause]:
    """A label's or an annotation's key: [prefix/]name."""
    prefix, slash, name = value.rpartition("/")
    if slash and (not SUBDOMAIN.match(prefix) or len(prefix) > 253):
        return [wrong(field, value, f"prefix part {SUBDOMAIN_WHY}")]
    if not name:
        return [wrong(field, value, "name part must be non-empty")]
    if len(name) > 63:
        return [wrong(field, value, "name part must be no more than 63 bytes")]
    return [] if VALUE.match(name) else [wrong(field, value, KEY_WHY)]


def label_value(field: str, value: str) -> list[Cause]:
    if len(value) > 63:
        return [wrong(field, value, "must be no more than 63 bytes")]
    return [] if VALUE.match(value) else [wrong(field, value, VALUE_WHY)]


def labels(field: str, given: dict[str, Any]) -> list[Cause]:
    causes: list[Cause] = []
    for name, value in given.items():
        causes += key(field, name) + label_value(field, value)
    return causes


def metadata(meta: Json, *, short: bool = False, path: str = "metadata") -> list[Cause]:
    """Name, labels and annotations of one object; `short` for kinds whose names are DNS labels."""
    causes: list[Cause] = []
    if "name" in meta:
        causes += (label if short else subdomain)(f"{path}.name", meta["name"])
    causes += labels(f"{path}.labels", meta.get("labels") or {})
    annotations = meta.get("annotations") or {}
    for name in annotations:
        causes += key(f"{path}.annotations", name.lower())
    size = sum(len(name.encode()) + len(value.encode()) for name, value in annotations.items())
    if size > MOST_ANNOTATIONS:
        why = f"Too long: may not be more than {MOST_ANNOTATIONS} bytes"
        causes.append(Cause("FieldValueTooLong", f"{path}.annotations", why))
    return causes
