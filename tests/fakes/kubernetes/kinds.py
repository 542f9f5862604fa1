"""The kinds that the server serves, and where each is found: group, version, namespaced or not, whose field table."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.fakes.kubernetes.problems import Json


@dataclass(frozen=True, kw_only=True)
class Kind:
    group: str
    plural: str
    kind: str
    model: str | None  # the client's model that judges its fields; None for a custom resource
    version: str = "v1"
    namespaced: bool = True
    shape: Json | None = field(default=None, compare=False)  # a custom resource's fields, as `schema.custom` has them
    immutable: tuple[str, ...] = ()  # fields of its spec

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def shown_deleted(self) -> bool:
        """Whether a delete answers with the object, and not with a Status, even if it is gone at once."""
        return self.plural in ("pods", "persistentvolumeclaims", "resourcequotas")

    @property
    def marked(self) -> bool:
        """Whether its streams have bookmarks: those of events come from etcd and have none."""
        return self.plural != "events"

    @property
    def graceful(self) -> bool:
        """Whether a delete waits for somebody (the kubelet) to say that it is over."""
        return self.plural == "pods"


JOBS = Kind(group="batch", plural="jobs", kind="Job", model="V1Job")
PODS = Kind(group="", plural="pods", kind="Pod", model="V1Pod")
EVENTS = Kind(group="", plural="events", kind="Event", model="CoreV1Event")
CONFIG_MAPS = Kind(group="", plural="configmaps", kind="ConfigMap", model="V1ConfigMap")
QUOTAS = Kind(group="", plural="resourcequotas", kind="ResourceQuota", model="V1ResourceQuota")
CLAIMS = Kind(
    group="", plural="persistentvolumeclaims", kind="PersistentVolumeClaim", model="V1PersistentVolumeClaim"
)  # fmt: skip
NAMESPACES = Kind(group="", plural="namespaces", kind="Namespace", model="V1Namespace", namespaced=False)
NODES = Kind(group="", plural="nodes", kind="Node", model="V1Node", namespaced=False)
DEFINITIONS = Kind(
    group="apiextensions.k8s.io", plural="customresourcedefinitions", kind="CustomResourceDefinition",
    model="V1CustomResourceDefinition", namespaced=False,
)  # fmt: skip
REVIEWS = Kind(
    group="authorization.k8s.io", plural="selfsubjectaccessreviews", kind="SelfSubjectAccessReview",
    model="V1SelfSubjectAccessReview", namespaced=False,
)  # fmt: skip
BUILTIN = (JOBS, PODS, EVENTS, CONFIG_MAPS, QUOTAS, CLAIMS, NAMESPACES, NODES, DEFINITIONS, REVIEWS)
