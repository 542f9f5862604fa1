"""Pod logs: what a test wrote for a pod, as the API says it: none before the container started, and to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from tests.fakes.kubernetes import problems
from tests.fakes.kubernetes.kinds import PODS
from tests.fakes.kubernetes.problems import Json
from tests.fakes.kubernetes.store import Store
from tests.fakes.kubernetes.watches import YES


class Logs:
    """Lines by the pod's name, each with its time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lines: dict[str, list[tuple[str, str]]] = {}

    def add(self, pod: str, text: str) -> None:
        now = self.store.clock().strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        self.lines.setdefault(pod, []).append((now, text))

    async def serve(self, request: web.BaseRequest, namespace: str, name: str) -> web.StreamResponse:
        query = request.query
        pod = self.store.get(PODS, namespace, name).obj
        _readable(pod, query)
        stamped = query.get("timestamps") in YES
        if query.get("follow") not in YES:
            text = _text(self._last(name, query), stamped)
            text = text[: int(query["limitBytes"])] if "limitBytes" in query else text
            return web.Response(body=text, content_type="text/plain")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        lines = self._last(name, query)
        sent = len(self.lines.get(name, []))
        while True:
            if lines:
                await response.write(_text(lines, stamped))
            there = self.store.find(PODS, namespace, name)
            if there is None or (there.obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                return response
            await asyncio.sleep(0.02)
            lines = self.lines.get(name, [])[sent:]
            sent += len(lines)

    def _last(self, name: str, query: Mapping[str, str]) -> list[tuple[str, str]]:
        lines = self.lines.get(name, [])
        since = query.get("sinceTime")
        lines = [line for line in lines if line[0][:19] >= since[:19]] if since else lines
        tail = query.get("tailLines")
        return lines[max(0, len(lines) - int(tail)) :] if tail is not None else list(lines)


def _text(lines: list[tuple[str, str]], stamped: bool) -> bytes:
    return "".join(f"{when} {line}\n" if stamped else f"{line}\n" for when, line in lines).encode()


def _readable(pod: Json, query: Mapping[str, str]) -> None:
    """A `Problem` for a container that is not there, or has not started."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    containers = [one["name"] for one in (pod.get("spec") or {}).get("containers") or []]
    wanted = query.get("container") or (containers[0] if len(containers) == 1 else "")
    if containers and not wanted:
        raise problems.bad_request(f"a container name must be specified for pod {name}, choose one of: "
                                   f"[{' '.join(containers)}]")  # fmt: skip
    if containers and wanted not in containers:
        raise problems.bad_request(f"container {wanted} is not valid for pod {name}")
    if query.get("previous") in YES:
        raise problems.bad_request(f'previous terminated container "{wanted}" in pod "{name}" not found')
    for one in status.get("containerStatuses") or []:
        if one["name"] == wanted and "waiting" in one["state"]:
            why = one["state"]["waiting"]["reason"]
            waits = "trying and failing to pull image" if why in ("ErrImagePull", "ImagePullBackOff") else why
            raise problems.bad_request(f'container "{wanted}" in pod "{name}" is waiting to start: {waits}')
