"""What the server says it serves: /version, /api, /apis, and the resources of each group and version."""

from __future__ import annotations

from collections.abc import Iterable

from tests.fakes.kubernetes.kinds import Kind
from tests.fakes.kubernetes.problems import Json

VERSION = {
    "major": "1", "minor": "36", "gitVersion": "v1.36.2", "gitCommit": "0" * 40, "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z", "goVersion": "go1.26.0", "compiler": "gc", "platform": "linux/amd64",
}  # fmt: skip
VERBS = ["create", "delete", "get", "list", "patch", "watch"]


def _group(name: str, versions: list[str]) -> Json:
    shown = [{"groupVersion": f"{name}/{one}", "version": one} for one in versions]
    return {"name": name, "versions": shown, "preferredVersion": shown[0]}


def answer(parts: list[str], kinds: Iterable[Kind], address: str) -> Json | None:
    """The document at that path; None if it is none of discovery's."""
    if parts == ["version"]:
        return VERSION
    if parts == ["api"]:
        servers = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": servers}
    groups: dict[str, list[str]] = {}
    for kind in kinds:
        if kind.group and kind.version not in groups.setdefault(kind.group, []):
            groups[kind.group].append(kind.version)
    if parts == ["apis"]:
        listed = [_group(name, versions) for name, versions in groups.items()]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    if len(parts) == 2 and parts[0] == "apis" and parts[1] in groups:
        return {"kind": "APIGroup", "apiVersion": "v1"} | _group(parts[1], groups[parts[1]])
    wanted = "v1" if parts == ["api", "v1"] else "/".join(parts[1:]) if len(parts) == 3 and parts[0] == "apis" else ""
    found = [kind for kind in kinds if kind.api_version == wanted]
    if not found:
        return None
    resources = [_resource(kind) for kind in found]
    if wanted == "v1":
        resources.append({"name": "pods/log", "singularName": "", "namespaced": True, "kind": "Pod", "verbs": ["get"]})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": wanted, "resources": resources}


def _resource(kind: Kind) -> Json:
    names = {"name": kind.plural, "singularName": kind.kind.lower(), "kind": kind.kind}
    return names | {"namespaced": kind.namespaced, "verbs": VERBS}
