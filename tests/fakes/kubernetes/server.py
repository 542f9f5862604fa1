"""The fake API server: Jobs, pods, events and namespaces on a loopback port, by HTTP and watch streams."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from aiohttp import web

from tests.fakes.kubernetes import names, patches, problems, schema, selectors
from tests.fakes.kubernetes.problems import Json, Problem
from tests.fakes.kubernetes.store import Change, Kind, Store

JOBS = Kind(group="batch", plural="jobs", kind="Job", model="V1Job")
PODS = Kind(group="", plural="pods", kind="Pod", model="V1Pod")
EVENTS = Kind(group="", plural="events", kind="Event", model="CoreV1Event")
NAMESPACES = Kind(group="", plural="namespaces", kind="Namespace", model="V1Namespace")
KINDS = {(kind.group, kind.plural): kind for kind in (JOBS, PODS, EVENTS, NAMESPACES)}


class KubernetesServer:
    """`async with KubernetesServer() as cluster`: namespaces `default` and `training`."""

    def __init__(self, *, token: str = "the-token-of-the-tests") -> None:
        self.token, self.store, self.port = token, Store(), 0
        self.requests: list[tuple[str, str]] = []  # verb, plural
        self.forbidden: set[tuple[str, str]] = set()
        self.faults: list[tuple[str, str, str]] = []  # verb, plural, what
        self.logs: dict[str, list[str]] = {}  # pod → lines
        self._runner: web.ServerRunner | None = None
        for name in ("default", "training"):
            self.store.add(NAMESPACES, "", {"metadata": {"name": name}, "status": {"phase": "Active"}})

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

    def fail(self, verb: str, resource: str, what: str) -> None:
        """Spoils the next such request: "429", "500", "503", "hang", or "lost" (done, then the connection is cut)."""
        self.faults.append((verb, resource, what))

    def put(self, plural: str, obj: Json, *, namespace: str = "training") -> Json:
        """What the cluster itself does: the object (a pod, an event, a Job with its status) is there as given."""
        kind = next(one for one in KINDS.values() if one.plural == plural)
        there = self.store.objects.get(kind, {}).get((namespace, obj["metadata"]["name"]))
        if there is None:
            return self.store.add(kind, namespace, obj).obj
        return self.store.replace(kind, namespace, patches.merge(there.obj, obj)).obj

    def log(self, pod: str, text: str) -> None:
        self.logs.setdefault(pod, []).append(text)

    def compact(self) -> None:
        self.store.compact()

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
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
        if parts == ["version"]:
            return web.json_response({"major": "1", "minor": "36", "gitVersion": "v1.36.2"})
        group, rest = ("", parts[2:]) if parts[:2] == ["api", "v1"] else (parts[1] if len(parts) > 2 else "", parts[3:])
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        if len(rest) == 3 and rest[0] == "pods" and rest[2] == "log" and request.method == "GET":
            self.requests.append(("get", "pods/log"))
            self.store.get(PODS, namespace, rest[1])
            lines = self.logs.get(rest[1], [])[-int(request.query.get("tailLines") or 10**9) :]
            return web.Response(text="".join(line + "\n" for line in lines))
        kind = KINDS.get((group, rest[0])) if rest else None
        if kind is None or len(rest) > 2:
            raise problems.no_such_path()
        name = rest[1] if len(rest) == 2 else ""
        verb = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch", "DELETE": "delete"}.get(
            request.method
        )
        watch = verb == "list" and request.query.get("watch") in ("1", "true", "True")
        verb = "watch" if watch else verb
        if verb is None or bool(name) is (verb in ("create", "list", "watch")):
            raise problems.method_not_allowed()
        self.requests.append((verb, kind.plural))
        if (verb, kind.plural) in self.forbidden:
            who = "system:serviceaccount:signalbox:signalbox"
            said = f'User "{who}" cannot {verb} resource "{kind.plural}" in API group "{kind.group}"'
            raise problems.forbidden(kind.group, kind.plural, name, f'{said} in the namespace "{namespace}"')
        fault = next((one for one in self.faults if one[:2] == (verb, kind.plural)), None)
        what = fault[2] if fault else ""
        if fault:
            self.faults.remove(fault)
        if what == "hang":
            await asyncio.sleep(3600)
        if what.isdigit():
            raise problems.too_many(1) if what == "429" else problems.server_failure(int(what))
        if verb == "watch":
            return await self._watch(request, kind, namespace)
        raw = await request.text()
        try:
            body = json.loads(raw) if raw else {}
        except ValueError as error:
            raise problems.bad_request(f"error decoding: {error}") from None
        answer, status = self._answer(request, verb, kind, namespace, name, body)
        if what == "lost" and request.transport is not None:
            request.transport.abort()
        return web.Response(body=answer, status=status, content_type="application/json")

    def _answer(
        self, request: web.BaseRequest, verb: str, kind: Kind, namespace: str, name: str, body: Any
    ) -> tuple[bytes, int]:
        if verb == "get":
            return self.store.get(kind, namespace, name).body, 200
        if verb == "list":
            return self._list(request, kind, namespace), 200
        if verb == "create":
            if namespace:
                self.store.get(NAMESPACES, "", namespace)
            return self.store.add(kind, namespace, self._checked(request, kind, body)).body, 201
        there = self.store.get(kind, namespace, name).obj
        if verb == "patch":
            made = patches.apply(request.headers.get("Content-Type", ""), there, body, builtin=True)
            made, uid = self._checked(request, kind, made), made["metadata"].get("uid")
            if uid != there["metadata"]["uid"]:
                cause = problems.wrong("metadata.uid", uid, "field is immutable")
                raise problems.invalid(kind.group, kind.kind, name, [cause])
            if made["metadata"].get("resourceVersion") != there["metadata"]["resourceVersion"]:
                raise problems.conflict(kind.group, kind.plural, name)
            if kind is JOBS and made["spec"].get("template") != there["spec"].get("template"):
                cause = problems.wrong("spec.template", "…", "field is immutable")
                raise problems.invalid(kind.group, kind.kind, name, [cause])
            return self.store.replace(kind, namespace, made).body, 200
        for what, key in (("UID", "uid"), ("ResourceVersion", "resourceVersion")):
            wanted = ((body or {}).get("preconditions") or {}).get(key)
            if wanted and wanted != there["metadata"][key]:
                raise problems.precondition(kind.group, kind.plural, name, what, wanted, there["metadata"][key])
        self.store.remove(kind, namespace, name)
        return json.dumps(problems.success(name=name, kind=kind.plural, uid=there["metadata"]["uid"])).encode(), 200

    def _checked(self, request: web.BaseRequest, kind: Kind, body: Json) -> Json:
        made, unknown = schema.check(body, kind.model, kind=kind.kind, version="v1")
        if unknown and request.query.get("fieldValidation") == "Strict":
            said = ", ".join(f'unknown field "{path}"' for path in unknown)
            raise problems.bad_request(f'{kind.kind} in version "v1" cannot be handled as a {kind.kind}: '
                                       f"strict decoding error: {said}")  # fmt: skip
        meta = made.get("metadata") or {}
        causes = names.metadata(meta) or ([] if meta.get("name") else [problems.missing("metadata.name")])
        if causes:
            raise problems.invalid(kind.group, kind.kind, meta.get("name", ""), causes)
        return made

    def _list(self, request: web.BaseRequest, kind: Kind, namespace: str) -> bytes:
        fits = selectors.parse(
            request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""), kind.plural
        )
        limit, after = int(request.query.get("limit") or 0), request.query.get("continue") or ""
        version, _, start = after.partition("|")
        if after and int(version) < self.store.oldest:
            raise problems.expired("The provided continue parameter is too old to display a consistent list result.")
        found = [
            (f"{where}/{name}", entry.body)
            for (where, name), entry in sorted(self.store.objects.get(kind, {}).items())
            if (not namespace or where == namespace) and (fits is None or fits(entry.obj))
        ]
        found = [(key, body) for key, body in found if not start or key > start]
        meta = {"resourceVersion": version or str(self.store.version)}
        if limit and len(found) > limit:
            found = found[:limit]
            meta["continue"] = f"{meta['resourceVersion']}|{found[-1][0]}"
        head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta}
        return json.dumps(head).encode()[:-1] + b',"items":[' + b",".join(body for _, body in found) + b"]}"

    async def _watch(self, request: web.BaseRequest, kind: Kind, namespace: str) -> web.StreamResponse:
        query, queue = request.query, asyncio.Queue[Change]()
        fits = selectors.parse(query.get("labelSelector", ""), query.get("fieldSelector", ""), kind.plural)
        since = int(query.get("resourceVersion") or 0)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if since and since < self.store.oldest:
            gone = problems.too_old(since, self.store.oldest).status
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        if since:
            for change in self.store.history:
                if change.version > since:
                    queue.put_nowait(change)
        else:
            for (where, _), entry in self.store.objects.get(kind, {}).items():
                queue.put_nowait(
                    Change(version=entry.version, type="ADDED", kind=kind, namespace=where, entry=entry, before=None)
                )
        self.store.watchers.add(queue)
        try:
            async with asyncio.timeout(float(query.get("timeoutSeconds") or 1800)):
                while True:
                    change = await queue.get()
                    if change.kind is not kind or (namespace and change.namespace != namespace):
                        continue
                    now = fits is None or fits(change.entry.obj)
                    old = change.before is not None and (fits is None or fits(change.before.obj))
                    if not now and not old:
                        continue
                    type_ = change.type
                    if type_ == "MODIFIED":
                        type_ = "MODIFIED" if now and old else "ADDED" if now else "DELETED"
                    await response.write(b'{"type":"' + type_.encode() + b'","object":' + change.entry.body + b"}\n")
        except TimeoutError:
            if query.get("allowWatchBookmarks") in ("1", "true", "True"):
                mark = {"kind": kind.kind, "apiVersion": kind.api_version}
                mark["metadata"] = {"resourceVersion": str(self.store.version)}  # type: ignore[assignment]
                await response.write(json.dumps({"type": "BOOKMARK", "object": mark}).encode() + b"\n")
            return response
        finally:
            self.store.watchers.discard(queue)
