"""What the cluster refuses although it is well formed: webhooks, Pod Security "restricted", ResourceQuotas.

A quota's use is kept as pods come and go, so that judging one pod does not cost the number of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from tests.fakes.kubernetes.controller import OVER, phase
from tests.fakes.kubernetes.kinds import JOBS, NAMESPACES, PODS, QUOTAS, Kind
from tests.fakes.kubernetes.problems import Json, Problem, forbidden
from tests.fakes.kubernetes.schema import quantity
from tests.fakes.kubernetes.store import Change, Store

Matches = Callable[[Json], bool]
ENFORCE = "pod-security.kubernetes.io/enforce"
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
COMPUTE = {"cpu", "memory", "ephemeral-storage"}


class Admission:
    """Asked before every create; sees every change. `work` writes the quotas' status."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.refusals: list[tuple[str, str, Matches | None]] = []  # plural, message, which
        self.use: dict[str, Counter[str]] = {}  # namespace → what its pods and Jobs use
        self.changed: dict[str, None] = {}

    # as a controller

    def see(self, change: Change) -> None:
        if change.kind not in (PODS, JOBS, QUOTAS):
            return
        self.changed[change.namespace] = None
        use = self.use.setdefault(change.namespace, Counter())
        if change.before is not None:
            use.subtract(charge(change.kind, change.before.obj))
        if change.type != "DELETED":
            use.update(charge(change.kind, change.entry.obj))

    def work(self) -> bool:
        if not self.changed:
            return False
        namespace = next(iter(self.changed))
        del self.changed[namespace]
        for _, entry in list(self.store.scan(QUOTAS, namespace)):
            quota = entry.obj
            hard = (quota.get("spec") or {}).get("hard") or {}
            used = {name: shown(self.use[namespace][name]) for name in hard}
            status = {"hard": hard, "used": used}
            if quota.get("status") != status:
                self.store.replace(QUOTAS, namespace, quota | {"status": status})
        return True

    # as the API's judge

    def judge(self, kind: Kind, namespace: str, obj: Json) -> None:
        """A `Problem` for what must not be created."""
        name = obj["metadata"]["name"]
        for plural, message, matches in self.refusals:
            if plural == kind.plural and (matches is None or matches(obj)):
                raise denied(message)
        if kind is PODS:
            faults = self._insecure(namespace, obj["spec"])
            if faults:
                said = f'violates PodSecurity "restricted:latest": {", ".join(faults)}'
                raise forbidden("", "pods", name, said)
        wanted = charge(kind, obj)
        for _, entry in self.store.scan(QUOTAS, namespace) if wanted else ():
            self._within(entry.obj, kind, obj, wanted)

    def _within(self, quota: Json, kind: Kind, obj: Json, wanted: Counter[str]) -> None:
        name, hard = quota["metadata"]["name"], (quota.get("spec") or {}).get("hard") or {}
        if kind is PODS:
            lacking = _unsaid(hard, obj["spec"])
            if lacking:
                raise forbidden("", "pods", obj["metadata"]["name"], f"failed quota: {name}: must specify {lacking}")
        used = self.use.get(quota["metadata"]["namespace"], Counter())
        over = [one for one in sorted(hard) if wanted[one] and used[one] + wanted[one] > amount(hard[one])]
        if over:
            parts = [
                ",".join(f"{one}={shown(wanted[one])}" for one in over),
                ",".join(f"{one}={shown(used[one])}" for one in over),
                ",".join(f"{one}={hard[one]}" for one in over),
            ]
            said = f"exceeded quota: {name}, requested: {parts[0]}, used: {parts[1]}, limited: {parts[2]}"
            raise forbidden(kind.group, kind.plural, obj["metadata"]["name"], said)

    def _insecure(self, namespace: str, spec: Json) -> list[str]:
        there = self.store.find(NAMESPACES, "", namespace)
        labels = (there.obj["metadata"].get("labels") or {}) if there else {}
        return restricted(spec) if labels.get(ENFORCE) == "restricted" else []


def denied(message: str) -> Problem:
    """As an admission webhook's refusal reads."""
    return Problem(400, "", f'admission webhook "refuse.fake.test" denied the request: {message}')


def amount(value: Any) -> Any:
    return Decimal(str(quantity(value))).quantize(Decimal("0.000001"))


def shown(value: Any) -> str:
    """A sum as a quantity: "3", "500m"; bytes as they are, or in Ki, Mi, Gi where that is exact."""
    value = Decimal(value)
    if value != value.to_integral_value():
        return f"{(value * 1000).to_integral_value():f}m"
    number = int(value)
    for unit, size in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if number and number % size == 0:
            return f"{number // size}{unit}"
    return str(number)


def charge(kind: Kind, obj: Json) -> Counter[str]:
    """What one object uses of a quota; a pod that is over uses nothing but its object's count."""
    found: Counter[str] = Counter()
    if kind is JOBS:
        found["count/jobs.batch"] += 1
    elif kind is PODS:
        found["count/pods"] += 1
        if phase(obj) in OVER:
            return found
        found["pods"] += 1
        for what in ("requests", "limits"):
            for name, value in _effective(obj["spec"], what).items():
                found[f"{what}.{name}"] += value
                if what == "requests" and name in COMPUTE:
                    found[name] += value
    return found


def _effective(spec: Json, what: str) -> Json:
    """The containers' sum, or the largest init container where that is more, and the overhead."""
    total: Json = {}
    for one in spec.get("containers") or []:
        for name, value in ((one.get("resources") or {}).get(what) or {}).items():
            total[name] = total.get(name, 0) + amount(value)
    for one in spec.get("initContainers") or []:
        for name, value in ((one.get("resources") or {}).get(what) or {}).items():
            total[name] = max(total.get(name, 0), amount(value))
    for name, value in (spec.get("overhead") or {}).items():
        total[name] = total.get(name, 0) + amount(value)
    return total


def _unsaid(hard: Json, spec: Json) -> str:
    """What the quota limits and a container does not say: "requests.cpu for: main"."""
    parts: list[str] = []
    for name in sorted(hard):
        what, _, resource = name.rpartition(".") if name.startswith(("requests.", "limits.")) else ("", "", name)
        if resource not in COMPUTE:
            continue
        lacking = [
            one["name"]
            for one in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
            if resource not in ((one.get("resources") or {}).get(what or "requests") or {})
        ]
        if lacking:
            parts.append(f"{name} for: {','.join(sorted(lacking))}")
    return "; ".join(parts)


def restricted(spec: Json) -> list[str]:
    """What the Pod Security Standard "restricted" has against a pod, in the words of its admission."""
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    whole, faults = spec.get("securityContext") or {}, list[str]()

    def bad(test: Callable[[Json], bool]) -> list[str]:
        return [f'"{one["name"]}"' for one in containers if test(one.get("securityContext") or {})]

    def say(found: list[str], head: str, who: str, must: str) -> None:
        if found:
            plural = "container" if len(found) == 1 else "containers"
            faults.append(f"{head} ({who}{plural} {', '.join(found)} must {must})")

    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            faults.append(f"host namespaces ({key}=true)")
    say(bad(lambda own: bool(own.get("privileged"))), "privileged", "", "not set securityContext.privileged=true")
    say(bad(lambda own: own.get("allowPrivilegeEscalation") is not False), "allowPrivilegeEscalation != false", "",
        "set securityContext.allowPrivilegeEscalation=false")  # fmt: skip

    def capable(own: Json) -> bool:
        given = own.get("capabilities") or {}
        return "ALL" not in (given.get("drop") or []) or bool(set(given.get("add") or []) - {"NET_BIND_SERVICE"})

    say(bad(capable), "unrestricted capabilities", "", 'set securityContext.capabilities.drop=["ALL"]')
    for volume in spec.get("volumes") or []:
        kinds = sorted(set(volume) - {"name"} - VOLUMES)
        if kinds:
            used = f'volume "{volume["name"]}" uses restricted volume type "{kinds[0]}"'
            faults.append(f"restricted volume types ({used})")
    say(bad(lambda own: own.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True), "runAsNonRoot != true",
        "pod or ", "set securityContext.runAsNonRoot=true")  # fmt: skip
    root = bad(lambda own: own.get("runAsUser", whole.get("runAsUser")) == 0)
    if root:
        faults.append(f"runAsUser=0 (pod or container {', '.join(root)} must not set runAsUser=0)")

    def unprofiled(own: Json) -> bool:
        profile = own.get("seccompProfile") or whole.get("seccompProfile") or {}
        return profile.get("type") not in ("RuntimeDefault", "Localhost")

    say(bad(unprofiled), "seccompProfile", "pod or ",
        'set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"')  # fmt: skip
    return faults
