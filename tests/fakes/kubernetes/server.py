"""The fake API server: Jobs, pods, events and namespaces on a loopback port, by HTTP and watch streams."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml
from aiohttp import web

from tests.fakes.kubernetes import discovery, jobs, patches, problems, verbs
from tests.fakes.kubernetes.kinds import BUILTIN, JOBS, NAMESPACES, PODS, Kind
from tests.fakes.kubernetes.logs import Logs
from tests.fakes.kubernetes.problems import Json, Problem
from tests.fakes.kubernetes.store import Entry, Store
from tests.fakes.kubernetes.verbs import Asked
from tests.fakes.kubernetes.watches import YES, Streams

USER = "system:serviceaccount:signalbox:signalbox"


class KubernetesServer:
    """`async with KubernetesServer() as cluster`: namespaces `default` and `training`."""

    def __init__(self, *, token: str = "the-token-of-the-tests") -> None:
        self.token, self.store, self.port = token, Store(), 0
        self.kinds: dict[tuple[str, str, str], Kind] = {}  # group, version, plural
        self.serve(*BUILTIN)
        self.openapi: dict[str, Json] = {}  # group/version → its schema
        self.parts: dict[tuple[Kind, str], Callable[[str, str], Json]] = {}  # of a kind, a subresource that is read
        self.streams = Streams(self.store)
        self.requests: list[tuple[str, str]] = []  # verb, plural
        self.forbidden: set[tuple[str, str]] = set()
        self.faults: list[tuple[str, str, str]] = []  # verb, plural, what
        self.everywhere = ""  # what every request fails with
        self.listed: Counter[str] = Counter()  # lists, however many pages each has
        self.logs = Logs(self.store)
        self._runner: web.ServerRunner | None = None
        for name in ("default", "training"):
            labels = {"kubernetes.io/metadata.name": name}
            self.store.add(
                NAMESPACES, "", {"metadata": {"name": name, "labels": labels}, "status": {"phase": "Active"}}
            )

    def serve(self, *kinds: Kind) -> None:
        """Adds kinds to those that the server knows."""
        self.kinds |= {(kind.group, kind.version, kind.plural): kind for kind in kinds}

    @property
    def clock(self) -> Callable[[], datetime]:
        """The server's time; a test may set its own."""
        return self.store.clock

    @clock.setter
    def clock(self, clock: Callable[[], datetime]) -> None:
        self.store.clock = clock

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """How many requests there were of each (verb, resource)."""
        return Counter(self.requests)

    def close_watches(self, *, cut: bool = False) -> None:
        self.streams.close(cut=cut)

    def silence_watches(self) -> None:
        self.streams.silence()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kubeconfig(self, path: Path) -> Path:
        context = {"cluster": "fake", "user": "fake", "namespace": "training"}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": self.token}}],
            "contexts": [{"name": "fake", "context": context}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(config))
        return path

    def forbid(self, verb: str, resource: str) -> None:
        self.forbidden.add((verb, resource))

    def spoil(self, verb: str, resource: str, what: str) -> None:
        """Spoils the next such request: "429", "500", "503", "hang", or "lost" (done, then the connection is cut)."""
        self.faults.append((verb, resource, what))

    def spoil_all(self, what: str) -> None:
        """Spoils every request in one of these ways, until it is told "" instead."""
        self.everywhere = what

    def put(self, plural: str, obj: Json, *, namespace: str = "training") -> Json:
        """What the cluster itself does: the object (a pod, an event, a Job with its status) is there as given."""
        kind = next(one for one in self.kinds.values() if one.plural == plural)
        namespace = namespace if kind.namespaced else ""
        there = self.store.find(kind, namespace, obj["metadata"]["name"])
        if there is None:
            return self.store.add(kind, namespace, obj).obj
        return self.store.replace(kind, namespace, patches.merge(there.obj, obj)).obj

    def judge(self, kind: Kind, namespace: str, obj: Json) -> None:
        """Admission: a `Problem` for what must not be created. Nothing here; a cluster has its rules."""

    def create(self, kind: Kind, namespace: str, obj: Json) -> Entry:
        """One object that is well formed, as the API creates it: its status is not the client's to give."""
        if kind in (JOBS, PODS) or kind.shape is not None:
            obj = {key: value for key, value in obj.items() if key != "status"}
        return self.store.add(kind, namespace, obj, complete=jobs.labelled if kind is JOBS else None)

    def delete(self, kind: Kind, namespace: str, name: str, options: Json) -> Json | None:
        """The object if it is still there, because something holds it."""
        self.store.remove(kind, namespace, name)
        there = self.store.find(kind, namespace, name)
        return there.obj if there else None

    def log(self, pod: str, text: str) -> None:
        """One line of a pod's log."""
        self.logs.add(pod, text)

    def compact(self) -> None:
        self.store.compact()

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._handle, handler_cancellation=True), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if request.headers.get("Authorization") != f"Bearer {self.token}":
                raise problems.unauthorized()
            return await self._route(request)
        except Problem as problem:
            return web.json_response(problem.status, status=problem.code, headers=problem.headers)

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        document = discovery.answer(parts, self.kinds.values(), self.url.removeprefix("http://"))
        if parts[:3] == ["openapi", "v3", "apis"]:
            document = self.openapi.get("/".join(parts[3:]))
        if document is not None and request.method == "GET":
            return web.json_response(document)
        asked, part = self._asked(request, parts)
        resource = f"{asked.kind.plural}/{part}" if part else asked.kind.plural
        self.requests.append((asked.verb, resource))
        self.listed[resource] += asked.verb == "list" and "continue" not in asked.query
        self._authorize(asked, resource)
        what = await self._fault(asked.verb, resource)
        if (asked.kind, part) in self.parts:
            return web.json_response(self.parts[asked.kind, part](asked.namespace, asked.name))
        if part:
            return await self.logs.serve(request, asked.namespace, asked.name)
        if asked.verb == "watch":
            return await self.streams.serve(request, asked.kind, asked.namespace, asked.fits())
        raw = await request.text()
        try:
            body = json.loads(raw) if raw else {}
        except ValueError as error:
            raise problems.bad_request(f"error decoding: {error}") from None
        answer, status = verbs.answer(self, asked, body)
        if what == "lost" and request.transport is not None:
            request.transport.abort()
        return web.Response(body=answer, status=status, content_type="application/json")

    def _asked(self, request: web.BaseRequest, parts: list[str]) -> tuple[Asked, str]:
        """What the path and the method ask, and the subresource ("log", one of `parts`, or nothing)."""
        if parts[0] == "api":
            group, version, rest = "", "".join(parts[1:2]), parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            raise problems.no_such_path()
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        kind = self.kinds.get((group, version, rest[0])) if rest else None
        part = rest[2] if len(rest) == 3 else ""
        there = (kind is PODS and part == "log") or (kind is not None and (kind, part) in self.parts)
        readable = there and request.method == "GET"
        if kind is None or len(rest) > 3 or (part and not readable) or (namespace and not kind.namespaced):
            raise problems.no_such_path()
        name = rest[1] if len(rest) > 1 else ""
        if name and kind.namespaced and not namespace:
            raise problems.no_such_path()
        known = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
        verb = known.get(request.method)
        verb = "watch" if verb == "list" and request.query.get("watch") in YES else verb
        if verb is None or bool(name) is (verb in ("create", "list", "watch")):
            raise problems.method_not_allowed()
        if verb == "create" and kind.namespaced and not namespace:
            raise problems.method_not_allowed()
        kind_of_body = request.headers.get("Content-Type", "")
        return Asked(verb=verb, kind=kind, namespace=namespace, name=name, query=request.query,
                     content_type=kind_of_body), part  # fmt: skip

    def _authorize(self, asked: Asked, resource: str) -> None:
        if (asked.verb, resource) not in self.forbidden:
            return
        where = f' in the namespace "{asked.namespace}"' if asked.namespace else " at the cluster scope"
        said = f'User "{USER}" cannot {asked.verb} resource "{resource}" in API group "{asked.kind.group}"{where}'
        raise problems.forbidden(asked.kind.group, asked.kind.plural, asked.name, said)

    async def _fault(self, verb: str, resource: str) -> str:
        """The next fault that is ordered for such a request: raised or slept here, except for "lost"."""
        fault = next((one for one in self.faults if one[:2] == (verb, resource)), None)
        if fault is not None:
            self.faults.remove(fault)
        what = fault[2] if fault is not None else self.everywhere
        if what == "hang":
            await asyncio.sleep(3600)
        if what.isdigit():
            raise problems.too_many(1) if what == "429" else problems.server_failure(int(what))
        return what
