"""Wrong types and unknown fields, judged by the field tables that the official client carries in its own models.

So no schema is written by hand, and a field that the client knows is a field that the server knows. Wrong types are
always refused; unknown fields are refused, warned about or dropped in silence as `fieldValidation` says.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from functools import cache
from typing import Any

from kubernetes.client import models

from tests.fakes.kubernetes.problems import Cause, Json, bad_request, wrong

INT32 = 2**31
LONG = frozenset(
    {
        "activeDeadlineSeconds", "terminationGracePeriodSeconds", "runAsUser", "runAsGroup", "fsGroup", "generation",
        "observedGeneration", "deletionGracePeriodSeconds", "tolerationSeconds", "expirationSeconds",
        "gracePeriodSeconds", "supplementalGroups",
    }
)  # fmt: skip
QUANTITY = re.compile(r"^[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[munkMGTPE]|[eE][+-]?\d+)?$")
INTO = {"str": "string", "int": "int", "bool": "bool", "float": "float64"}
SCALES = {"": 1, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
SCALES |= {unit + "i": 1024 ** (index + 1) for index, unit in enumerate("KMGTPE")}
QUANTITIES = frozenset({"limits", "requests", "hard", "capacity", "allocatable", "overhead", "used"})


def quantity(value: Any) -> float:
    """A resource amount as a number: "500m" is 0.5, "1Gi" 2^30."""
    text = str(value)
    if not QUANTITY.match(text):
        raise ValueError(text)
    digits = re.match(r"^[+-]?[\d.]+", text)
    assert digits is not None
    tail = text[digits.end() :]
    return float(digits.group()) * SCALES[tail] if tail in SCALES else float(text)


@cache
def fields(model: str) -> dict[str, tuple[str, bool]]:
    """Key in JSON → (type, required)."""
    cls = getattr(models, model)
    return {
        key: (cls.openapi_types[name], cls.model_fields[name].is_required()) for name, key in cls.attribute_map.items()
    }


class _Walk:
    def __init__(self, kind: str, version: str) -> None:
        self.kind, self.version = kind, version
        self.unknown: list[str] = []

    def refuse(self, path: str, got: Any, wanted: str) -> None:
        shown = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
        said = f"json: cannot unmarshal {shown[type(got)]} into Go struct field {path or self.kind} of type {wanted}"
        if type(got) in (int, float):
            said = said.replace("number into", f"number {got} into")
        raise bad_request(f'{self.kind} in version "{self.version}" cannot be handled as a {self.kind}: {said}')

    def clean(self, value: Any, kind: str, path: str, key: str = "") -> Any:
        """The value without nulls and unknown fields."""
        if value is None:
            return None
        if inner := re.match(r"^List\[(.+)\]$", kind):
            if not isinstance(value, list):
                self.refuse(path, value, "[]" + inner[1])
            return [self.clean(item, inner[1], f"{path}[{index}]", key) for index, item in enumerate(value)]
        if inner := re.match(r"^Dict\[str, (.+)\]$", kind):
            if not isinstance(value, dict):
                self.refuse(path, value, "map[string]" + inner[1])
            return {name: self.clean(item, inner[1], f"{path}.{name}", key) for name, item in value.items()}
        if hasattr(models, kind):
            return self.object(value, kind, path)
        return self.scalar(value, kind, path, key)

    def object(self, value: Any, kind: str, path: str) -> Json:
        if not isinstance(value, dict):
            self.refuse(path, value, kind.removeprefix("V1"))
        known, kept = fields(kind), {}
        for name, item in value.items():
            here = f"{path}.{name}" if path else name
            if name not in known:
                self.unknown.append(here)
            elif item is not None:
                kept[name] = self.clean(item, known[name][0], here, name)
        return kept

    def scalar(self, value: Any, kind: str, path: str, key: str) -> Any:
        good = {"str": str, "bool": bool, "int": int, "float": (int, float)}.get(kind)
        if kind == "str" and key in QUANTITIES:
            if isinstance(value, bool) or not QUANTITY.match(str(value)):
                raise bad_request(
                    f'{self.kind} in version "{self.version}" cannot be handled as a {self.kind}: quantities must '
                    f"match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                )
            return str(value)
        if good is not None and (not isinstance(value, good) or (isinstance(value, bool) and kind != "bool")):
            self.refuse(path, value, INTO[kind] if kind != "int" else ("int64" if key in LONG else "int32"))
        if kind == "int" and not -INT32 <= value < INT32 and key not in LONG:
            self.refuse(path, value, "int32")
        if kind == "datetime":
            try:
                datetime.fromisoformat(value)
            except (ValueError, TypeError):
                self.refuse(path, value, "Time")
        if kind == "bytes":
            try:
                base64.b64decode(value, validate=True)
            except (binascii.Error, TypeError):
                self.refuse(path, value, "[]uint8")
        return value


def check(body: Json, model: str | None, *, kind: str, version: str) -> tuple[Json, list[str]]:
    """The body cleaned, and the paths of fields that nobody knows. Without a model (custom resources) as it is."""
    walk = _Walk(kind, version)
    meta = body.get("metadata")
    if model is None:
        if meta is not None:
            body = body | {"metadata": walk.object(meta, "V1ObjectMeta", "metadata")}
        return body, walk.unknown
    return walk.object(body, model, ""), walk.unknown


def strange(body: Json, shape: Json, path: str = "") -> list[str]:
    """The paths of fields that such a table does not know."""
    found = list[str]()
    for key, value in body.items():
        here = f"{path}.{key}" if path else key
        kind = shape.get(key)
        if kind is None:
            found.append(here)
        elif isinstance(kind, dict) and isinstance(value, dict):
            found += strange(value, kind, here)
        elif isinstance(kind, list) and isinstance(value, list):
            for index, item in enumerate(value):
                found += strange(item, kind[0], f"{here}[{index}]") if isinstance(item, dict) else []
    return found


def custom(body: Json, shape: Json, path: str = "") -> list[Cause]:
    """What is wrong with a custom resource by a small table: key → type name, or table, or [table] for lists."""
    causes: list[Cause] = []
    types = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}
    for key, kind in shape.items():
        here, value = f"{path}.{key}" if path else key, body.get(key)
        if value is None:
            continue
        if isinstance(kind, dict) and isinstance(value, dict):
            causes += custom(value, kind, here)
            continue
        name = kind if isinstance(kind, str) else "array" if isinstance(kind, list) else "object"
        if not isinstance(value, types[name]) or (isinstance(value, bool) and name != "boolean"):
            got = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}.get(
                type(value), "null"
            )
            why = f'{here} in body must be of type {name}: "{got}"'
            causes.append(wrong(here, got, why) if name else wrong(here, value, why))
        elif isinstance(kind, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    causes += custom(item, kind[0], f"{here}[{index}]")
    return causes
