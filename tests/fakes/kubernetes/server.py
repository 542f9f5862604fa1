"""The fake API server: Jobs, pods, events and namespaces on a loopback port, by HTTP and watch streams."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from aiohttp import web

from tests.fakes.kubernetes import discovery, jobs, names, patches, problems, schema, selectors
from tests.fakes.kubernetes.kinds import BUILTIN, JOBS, NAMESPACES, PODS, Kind
from tests.fakes.kubernetes.problems import Json, Problem
from tests.fakes.kubernetes.store import Entry, Store
from tests.fakes.kubernetes.watches import YES, Streams


class KubernetesServer:
    """`async with KubernetesServer() as cluster`: namespaces `default` and `training`."""

    def __init__(self, *, token: str = "the-token-of-the-tests") -> None:
        self.token, self.store, self.port = token, Store(), 0
        self.kinds: dict[tuple[str, str, str], Kind] = {}  # group, version, plural
        self.serve(*BUILTIN)
        self.streams = Streams(self.store)
        self.requests: list[tuple[str, str]] = []  # verb, plural
        self.forbidden: set[tuple[str, str]] = set()
        self.faults: list[tuple[str, str, str]] = []  # verb, plural, what
        self.logs: dict[str, list[str]] = {}  # pod → lines
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

    def close_watches(self) -> None:
        self.streams.close()

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

    def fail(self, verb: str, resource: str, what: str) -> None:
        """Spoils the next such request: "429", "500", "503", "hang", or "lost" (done, then the connection is cut)."""
        self.faults.append((verb, resource, what))

    def put(self, plural: str, obj: Json, *, namespace: str = "training") -> Json:
        """What the cluster itself does: the object (a pod, an event, a Job with its status) is there as given."""
        kind = next(one for one in self.kinds.values() if one.plural == plural)
        namespace = namespace if kind.namespaced else ""
        there = self.store.find(kind, namespace, obj["metadata"]["name"])
        if there is None:
            return self.store.add(kind, namespace, obj).obj
        return self.store.replace(kind, namespace, patches.merge(there.obj, obj)).obj

    def create(self, kind: Kind, namespace: str, obj: Json) -> Entry:
        """One object that is well formed, as the API creates it: its status is not the client's to give."""
        if kind in (JOBS, PODS):
            obj = {key: value for key, value in obj.items() if key != "status"}
        return self.store.add(kind, namespace, obj, complete=jobs.labelled if kind is JOBS else None)

    def delete(self, kind: Kind, namespace: str, name: str, options: Json) -> Json | None:
        """The object if it is still there, because something holds it."""
        self.store.remove(kind, namespace, name)
        there = self.store.find(kind, namespace, name)
        return there.obj if there else None

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
        document = discovery.answer(parts, self.kinds.values(), self.url.removeprefix("http://"))
        if document is not None and request.method == "GET":
            return web.json_response(document)
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" and len(parts) > 1 else (
            (parts[1], parts[2], parts[3:]) if parts[0] == "apis" and len(parts) > 2 else ("", "", [])
        )  # fmt: skip
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        if len(rest) == 3 and rest[0] == "pods" and rest[2] == "log" and request.method == "GET":
            self.requests.append(("get", "pods/log"))
            self.store.get(PODS, namespace, rest[1])
            lines = self.logs.get(rest[1], [])[-int(request.query.get("tailLines") or 10**9) :]
            return web.Response(text="".join(line + "\n" for line in lines))
        kind = self.kinds.get((group, version, rest[0])) if rest else None
        if kind is None or len(rest) > 2 or (namespace and not kind.namespaced):
            raise problems.no_such_path()
        name = rest[1] if len(rest) == 2 else ""
        verb = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch", "DELETE": "delete"}.get(
            request.method
        )
        watch = verb == "list" and request.query.get("watch") in YES
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
            query = request.query
            fits = selectors.parse(query.get("labelSelector", ""), query.get("fieldSelector", ""), kind.plural)
            return await self.streams.serve(request, kind, namespace, fits)
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
            return self.create(kind, namespace, self._checked(request, kind, body)).body, 201
        there = self.store.get(kind, namespace, name).obj
        if verb == "patch":
            builtin = kind.model is not None
            made = patches.apply(request.headers.get("Content-Type", ""), there, body, builtin=builtin)
            return self._patched(kind, namespace, there, self._checked(request, kind, made)), 200
        options = (body or {}) | {
            key: request.query[key] for key in ("propagationPolicy", "gracePeriodSeconds") if key in request.query
        }
        if "gracePeriodSeconds" in options:
            options["gracePeriodSeconds"] = int(options["gracePeriodSeconds"])
        for what, key in (("UID", "uid"), ("ResourceVersion", "resourceVersion")):
            wanted = (options.get("preconditions") or {}).get(key)
            if wanted and wanted != there["metadata"][key]:
                raise problems.precondition(kind.group, kind.plural, name, what, wanted, there["metadata"][key])
        policy = options.get("propagationPolicy")
        if policy not in (None, "", "Orphan", "Background", "Foreground"):
            cause = problems.unsupported("propagationPolicy", policy, ("Background", "Foreground", "Orphan", ""))
            raise problems.invalid("meta.k8s.io", "DeleteOptions", "", [cause])
        left = self.delete(kind, namespace, name, options)
        gone = problems.success(name=name, kind=kind.plural, uid=there["metadata"]["uid"])
        return json.dumps(gone if left is None else left).encode(), 200

    def _patched(self, kind: Kind, namespace: str, there: Json, made: Json) -> bytes:
        """Refuses what must not change; the status is not the client's, and a changed spec is a new generation."""
        old, new, name = there["metadata"], made["metadata"], there["metadata"]["name"]
        causes = [
            problems.wrong(f"metadata.{key}", new.get(key), "field is immutable")
            for key in ("uid", "name", "creationTimestamp")
            if new.get(key) != old.get(key)
        ]
        if kind is JOBS:
            causes += [
                problems.wrong(f"spec.{key}", "…", "field is immutable")
                for key in ("template", "completions", "completionMode", "selector", "podFailurePolicy")
                if made["spec"].get(key) != there["spec"].get(key)
                and not (key == "template" and self._rebinding(there, made))
            ]
        if causes:
            raise problems.invalid(kind.group, kind.kind, name, causes)
        if new.get("resourceVersion") != old["resourceVersion"]:
            raise problems.conflict(kind.group, kind.plural, name)
        if kind in (JOBS, PODS):
            made = {key: value for key, value in made.items() if key != "status"}
            made |= {"status": there["status"]} if "status" in there else {}
        if kind is JOBS and made["spec"] != there["spec"]:
            made["metadata"] = new | {"generation": old.get("generation", 1) + 1}
        return self.store.replace(kind, namespace, made).body

    @staticmethod
    def _rebinding(there: Json, made: Json) -> bool:
        """A suspended Job that never started may change where its pods go, and nothing else of the template."""
        if not there["spec"].get("suspend") or (there.get("status") or {}).get("startTime"):
            return False
        free = ("nodeSelector", "tolerations", "affinity", "schedulingGates")

        def bare(job: Json) -> Json:
            return {key: value for key, value in job["spec"]["template"]["spec"].items() if key not in free}

        return bare(there) == bare(made)

    def _checked(self, request: web.BaseRequest, kind: Kind, body: Json) -> Json:
        for key, expected in (("kind", kind.kind), ("apiVersion", kind.api_version)):
            if body.get(key) not in (None, "", expected):
                raise problems.bad_request(f"the {key} in the data ({body[key]}) does not match the expected {key} "
                                           f"({expected})")  # fmt: skip
        made, unknown = schema.check(body, kind.model, kind=kind.kind, version=kind.version)
        if unknown and request.query.get("fieldValidation") == "Strict":
            said = ", ".join(f'unknown field "{path}"' for path in unknown)
            raise problems.bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
                                       f"strict decoding error: {said}")  # fmt: skip
        meta = made.get("metadata") or {}
        if not meta.get("name") and meta.get("generateName"):
            meta = meta | {"name": meta["generateName"] + "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))}
        made["metadata"] = meta
        causes = names.metadata(meta) or ([] if meta.get("name") else [problems.missing("metadata.name")])
        if kind is JOBS and not causes:
            made = made if meta.get("uid") else jobs.defaults(made)
            causes = jobs.faults(made)
        if kind is PODS and not causes:
            made["spec"] = jobs.pod_defaults(made.get("spec") or {})
            causes = jobs.pod_faults(made["spec"], "spec")
        if causes:
            raise problems.invalid(kind.group, kind.kind, meta.get("name", ""), causes)
        return made

    def _list(self, request: web.BaseRequest, kind: Kind, namespace: str) -> bytes:
        query = request.query
        fits = selectors.parse(query.get("labelSelector", ""), query.get("fieldSelector", ""), kind.plural)
        limit, after = int(query.get("limit") or 0), query.get("continue") or ""
        version, _, start = after.partition("|")
        if after and int(version) < self.store.oldest:
            raise problems.expired("The provided continue parameter is too old to display a consistent list result.")
        asked = int(query.get("resourceVersion") or 0)
        if asked > self.store.version:
            raise problems.too_large(asked, self.store.version)
        where, _, name = start.partition("/")
        meta: Json = {"resourceVersion": version or str(self.store.version)}
        found, last = list[bytes](), ("", "")
        for key, entry in self.store.scan(kind, namespace, (where, name) if start else None):
            if fits is not None and not fits(entry.obj):
                continue
            if limit and len(found) == limit:
                meta["continue"] = f"{meta['resourceVersion']}|{last[0]}/{last[1]}"
                break
            found.append(entry.body)
            last = key
        head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta}
        return json.dumps(head).encode()[:-1] + b',"items":[' + b",".join(found) + b"]}"
