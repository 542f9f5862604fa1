"""Refusals as the API server words them: a Status body with reason, details and causes, and its HTTP code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Cause:
    """One fault of one field: the reason (FieldValueInvalid, …), the path, and what is wrong with it."""

    reason: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def wrong(field: str, value: Any, why: str) -> Cause:
    return Cause("FieldValueInvalid", field, f"Invalid value: {_shown(value)}: {why}")


def missing(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", field, "Required value" + (f": {why}" if why else ""))


def unsupported(field: str, value: Any, allowed: Iterable[str]) -> Cause:
    names = ", ".join(f'"{one}"' for one in sorted(allowed))
    return Cause("FieldValueNotSupported", field, f"Unsupported value: {_shown(value)}: supported values: {names}")


class Problem(Exception):
    """The server's no: `status` is the body, `code` the HTTP status."""

    def __init__(self, code: int, reason: str, message: str, *, headers: Json | None = None, **details: Any) -> None:
        super().__init__(message)
        self.code, self.reason, self.headers = code, reason, headers or {}
        self.continuation: str | None = None
        self.details = details

    @property
    def status(self) -> Json:
        metadata: Json = {"continue": self.continuation} if self.continuation else {}
        body: Json = {"kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure"}
        body["message"] = str(self)
        if self.reason:
            body["reason"] = self.reason
        if self.details:
            body["details"] = self.details
        return body | {"code": self.code}


def success(**details: Any) -> Json:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _target(group: str, kind: str, name: str) -> Json:
    return {"name": name} | ({"group": group} if group else {}) | {"kind": kind}


def _dotted(word: str, group: str) -> str:
    return f"{word}.{group}" if group else word


def no_such_path() -> Problem:
    return Problem(404, "NotFound", "the server could not find the requested resource")


def not_found(group: str, plural: str, name: str) -> Problem:
    return Problem(404, "NotFound", f'{_dotted(plural, group)} "{name}" not found', **_target(group, plural, name))


def already_exists(group: str, plural: str, name: str) -> Problem:
    message = f'{_dotted(plural, group)} "{name}" already exists'
    return Problem(409, "AlreadyExists", message, **_target(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str = "") -> Problem:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {_dotted(plural, group)} "{name}": {why}'
    return Problem(409, "Conflict", message, **_target(group, plural, name))


def precondition(group: str, plural: str, name: str, what: str, wanted: str, there: str) -> Problem:
    why = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {there}"
    return conflict(group, plural, name, why)


def invalid(group: str, kind: str, name: str, causes: list[Cause]) -> Problem:
    said = str(causes[0]) if len(causes) == 1 else "[" + ", ".join(str(cause) for cause in causes) + "]"
    message = f'{_dotted(kind, group)} "{name}" is invalid: {said}'
    listed = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    return Problem(422, "Invalid", message, **_target(group, kind, name), causes=listed)


def bad_request(message: str) -> Problem:
    return Problem(400, "BadRequest", message)


def unauthorized() -> Problem:
    return Problem(401, "Unauthorized", "Unauthorized")


def forbidden(group: str, plural: str, name: str, why: str) -> Problem:
    shown = f' "{name}"' if name else ""
    message = f"{_dotted(plural, group)}{shown} is forbidden: {why}"
    return Problem(403, "Forbidden", message, **_target(group, plural, name))


def expired(message: str) -> Problem:
    return Problem(410, "Expired", message)


def too_old(asked: int, oldest: int) -> Problem:
    return expired(f"too old resource version: {asked} ({oldest})")


def too_large(asked: int, newest: int) -> Problem:
    message = f"Too large resource version: {asked}, current: {newest}"
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    return Problem(504, "Timeout", message, causes=causes, retryAfterSeconds=1)


def method_not_allowed() -> Problem:
    message = "the server does not allow this method on the requested resource"
    return Problem(405, "MethodNotAllowed", message)


def unsupported_media(given: str, allowed: Iterable[str]) -> Problem:
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(allowed)
    return Problem(415, "UnsupportedMediaType", message)


def too_many(seconds: int) -> Problem:
    message = "Too many requests, please try again later."
    headers = {"Retry-After": str(seconds)}
    return Problem(429, "TooManyRequests", message, headers=headers, retryAfterSeconds=seconds)


def server_failure(code: int) -> Problem:
    words = {
        500: ("InternalError", "Internal error occurred: etcdserver: request timed out"),
        503: ("ServiceUnavailable", "apiserver is shutting down"),
        504: ("Timeout", "Timeout: request did not complete within the allotted timeout"),
    }
    reason, message = words.get(code, ("", "an error on the server has prevented the request from succeeding"))
    return Problem(code, reason, message)
