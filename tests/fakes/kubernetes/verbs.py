"""What the API does with a request that found its kind: get, list, create, patch, delete, and what each refuses."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.fakes.kubernetes import jobs, names, patches, problems, schema, selectors
from tests.fakes.kubernetes.kinds import JOBS, NAMESPACES, PODS, REVIEWS, Kind
from tests.fakes.kubernetes.problems import Json, Problem

if TYPE_CHECKING:
    from tests.fakes.kubernetes.server import KubernetesServer

LETTERS = "bcdfghjklmnpqrstvwxz2456789"
POLICIES = ("Background", "Foreground", "Orphan")
REBINDING = ("nodeSelector", "tolerations", "affinity", "schedulingGates")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request: the verb, on what, and how."""

    verb: str
    kind: Kind
    namespace: str
    name: str
    query: Mapping[str, str]
    content_type: str = ""

    @property
    def dry(self) -> bool:
        """Judged as if it was meant, and not done."""
        given = self.query.get("dryRun")
        if given not in (None, "", "All"):
            cause = problems.unsupported("dryRun", given, ("All",))
            raise problems.invalid("meta.k8s.io", f"{self.verb.title()}Options", "", [cause])
        return given == "All"

    def number(self, key: str) -> int:
        try:
            return int(self.query.get(key) or 0)
        except ValueError:
            raise problems.bad_request(f'strconv.ParseInt: parsing "{self.query[key]}": invalid syntax') from None

    def fits(self) -> selectors.Test | None:
        """By its label and field selectors."""
        return selectors.parse(
            self.query.get("labelSelector", ""), self.query.get("fieldSelector", ""), self.kind.plural
        )


def answer(server: KubernetesServer, asked: Asked, body: Any) -> tuple[bytes, int]:
    """The bytes and the HTTP status."""
    if asked.verb == "get":
        return server.store.get(asked.kind, asked.namespace, asked.name).body, 200
    if asked.verb == "list":
        return _list(server, asked), 200
    if asked.verb == "create":
        return _create(server, asked, body), 201
    if asked.verb == "patch":
        return _patch(server, asked, body), 200
    return _delete(server, asked, body or {}), 200


def _create(server: KubernetesServer, asked: Asked, body: Any) -> bytes:
    kind, namespace = asked.kind, asked.namespace
    if namespace:
        server.store.get(NAMESPACES, "", namespace)
    if kind is REVIEWS:
        return _review(server, asked, body)
    made = checked(asked, body)
    meta = made["metadata"]
    if meta.get("namespace", namespace) != namespace:
        raise problems.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if meta.get("resourceVersion"):
        raise Problem(500, "", "resourceVersion should not be set on objects to be created")
    server.judge(kind, namespace, made)
    if not asked.dry:
        return server.create(kind, namespace, made).body
    if server.store.find(kind, namespace, meta["name"]):
        raise problems.already_exists(kind.group, kind.plural, meta["name"])
    born = {"uid": str(uuid.uuid4()), "creationTimestamp": server.store.now()}
    shown = made | {"metadata": meta | born | ({"namespace": namespace} if namespace else {})}
    return json.dumps({"kind": kind.kind, "apiVersion": kind.api_version} | shown).encode()


def _review(server: KubernetesServer, asked: Asked, body: Any) -> bytes:
    """What the client may, by what the test forbade: answered and not kept."""
    made, _ = schema.check(body, asked.kind.model, kind=asked.kind.kind, version=asked.kind.version)
    about = made["spec"].get("resourceAttributes") or {}
    resource = "/".join(about[key] for key in ("resource", "subresource") if about.get(key))
    allowed = (about.get("verb"), resource) not in server.forbidden
    return json.dumps(made | {"metadata": {}, "status": {"allowed": allowed}}).encode()


def _patch(server: KubernetesServer, asked: Asked, body: Any) -> bytes:
    """Refuses what must not change; the status is not the client's, and a changed spec is a new generation."""
    kind, name = asked.kind, asked.name
    there = server.store.get(kind, asked.namespace, name).obj
    made = checked(asked, patches.apply(asked.content_type, there, body, builtin=kind.model is not None))
    old, new = there["metadata"], made["metadata"]
    causes = [
        problems.wrong(f"metadata.{key}", new.get(key), "field is immutable")
        for key in ("uid", "name", "creationTimestamp")
        if new.get(key) != old.get(key)
    ]
    if kind is JOBS:
        causes += [
            problems.wrong(f"spec.{key}", "…", "field is immutable")
            for key in ("template", "completions", "completionMode", "selector", "podFailurePolicy")
            if made["spec"].get(key) != there["spec"].get(key) and not (key == "template" and _rebinds(there, made))
        ]
    causes += [
        problems.wrong(f"spec.{key}", made["spec"].get(key), "field is immutable")
        for key in kind.immutable
        if made["spec"].get(key) != there["spec"].get(key)
    ]
    if causes:
        raise problems.invalid(kind.group, kind.kind, name, causes)
    if new.get("resourceVersion") != old["resourceVersion"]:
        raise problems.conflict(kind.group, kind.plural, name)
    if kind in (JOBS, PODS) or kind.shape is not None:
        made = {key: value for key, value in made.items() if key != "status"}
        made |= {"status": there["status"]} if "status" in there else {}
    if kind is JOBS and made["spec"] != there["spec"]:
        made["metadata"] = new | {"generation": old.get("generation", 1) + 1}
    if asked.dry:
        return json.dumps(made).encode()
    return server.store.replace(kind, asked.namespace, made).body


def _rebinds(there: Json, made: Json) -> bool:
    """A suspended Job that never started may change where its pods go, and nothing else of the template."""
    if not there["spec"].get("suspend") or (there.get("status") or {}).get("startTime"):
        return False

    def bare(job: Json) -> Json:
        return {key: value for key, value in job["spec"]["template"]["spec"].items() if key not in REBINDING}

    return bare(there) == bare(made)


def _delete(server: KubernetesServer, asked: Asked, body: Json) -> bytes:
    kind, name = asked.kind, asked.name
    there = server.store.get(kind, asked.namespace, name).obj
    options = body | {key: asked.query[key] for key in ("propagationPolicy",) if key in asked.query}
    if "gracePeriodSeconds" in asked.query:
        options["gracePeriodSeconds"] = asked.number("gracePeriodSeconds")
    for what, key in (("UID", "uid"), ("ResourceVersion", "resourceVersion")):
        wanted = (options.get("preconditions") or {}).get(key)
        if wanted and wanted != there["metadata"][key]:
            raise problems.precondition(kind.group, kind.plural, name, what, wanted, there["metadata"][key])
    policy = options.get("propagationPolicy")
    if policy and policy not in POLICIES:
        cause = problems.unsupported("propagationPolicy", policy, POLICIES)
        raise problems.invalid("meta.k8s.io", "DeleteOptions", "", [cause])
    left = None if asked.dry else server.delete(kind, asked.namespace, name, options)
    if left is None and kind.shown_deleted:
        return json.dumps(there).encode()
    gone = problems.success(name=name, kind=kind.plural, uid=there["metadata"]["uid"])
    if kind.group:
        gone["details"]["group"] = kind.group
    return json.dumps(gone if left is None else left).encode()


def checked(asked: Asked, body: Any) -> Json:
    """The object that the body says: known fields of the right types, filled in and found valid."""
    kind = asked.kind
    if not isinstance(body, dict):
        raise problems.bad_request(f"couldn't get version/kind; json parse error: {type(body).__name__}")
    for key, expected in (("kind", kind.kind), ("apiVersion", kind.api_version)):
        if body.get(key) not in (None, "", expected):
            said = f"the {key} in the data ({body[key]}) does not match the expected {key} ({expected})"
            raise problems.bad_request(said)
    made, unknown = schema.check(body, kind.model, kind=kind.kind, version=kind.version)
    unknown += schema.strange(made, kind.shape) if kind.shape is not None else []
    if unknown and asked.query.get("fieldValidation") == "Strict":
        said = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise problems.bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
                                   f"strict decoding error: {said}")  # fmt: skip
    meta = made.get("metadata") or {}
    if not meta.get("name") and meta.get("generateName"):
        meta = meta | {"name": meta["generateName"] + "".join(random.choices(LETTERS, k=5))}
    made["metadata"] = meta
    causes = names.metadata(meta)
    if not meta.get("name"):
        causes.append(problems.missing("metadata.name", "name or generateName is required"))
    if kind.shape is not None:
        causes += schema.custom(made, kind.shape)
    if kind is JOBS and not causes:
        made = jobs.defaults(made) if asked.verb == "create" else made
        causes = jobs.faults(made)
    if kind is PODS and not causes:
        made["spec"] = jobs.pod_defaults(made.get("spec") or {})
        causes = jobs.pod_faults(made["spec"], "spec")
    if causes:
        raise problems.invalid(kind.group, kind.kind, meta.get("name", ""), causes)
    return made


def _list(server: KubernetesServer, asked: Asked) -> bytes:
    store, kind, fits = server.store, asked.kind, asked.fits()
    limit, version, start = asked.number("limit"), "", ""
    if after := asked.query.get("continue"):
        version, _, start = after.partition("|")
        if not version.isdigit() or not start:
            raise problems.bad_request("continue key is not valid: incorrect encoding")
        if int(version) < store.oldest:
            raise problems.expired("The provided continue parameter is too old to display a consistent list result.")
    if asked.number("resourceVersion") > store.version:
        raise problems.too_large(asked.number("resourceVersion"), store.version)
    where, _, name = start.partition("/")
    meta: Json = {"resourceVersion": version or str(store.version)}
    found, last = list[bytes](), ("", "")
    for key, entry in store.scan(kind, asked.namespace, (where, name) if start else None):
        if fits is not None and not fits(entry.obj):
            continue
        if limit and len(found) == limit:
            meta["continue"] = f"{meta['resourceVersion']}|{last[0]}/{last[1]}"
            break
        found.append(entry.body)
        last = key
    head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta}
    return json.dumps(head).encode()[:-1] + b',"items":[' + b",".join(found) + b"]}"
