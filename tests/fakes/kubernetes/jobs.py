"""A Job as the API server takes it: what it fills in by itself, and what it refuses."""

from __future__ import annotations

import copy

from tests.fakes.kubernetes import names
from tests.fakes.kubernetes.problems import Cause, Json, missing, unsupported, wrong
from tests.fakes.kubernetes.schema import quantity

ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")


def pod_defaults(spec: Json) -> Json:
    """A pod's spec with the fields that the server fills in; what is limited is also requested."""
    spec = {"dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "securityContext": {},
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30} | spec  # fmt: skip
    for group in ("containers", "initContainers"):
        if group not in spec:
            continue
        spec[group] = [_container(one) for one in spec[group]]
    return spec


def _container(one: Json) -> Json:
    image = str(one.get("image", ""))
    fresh = "@" not in image and (":" not in image.rpartition("/")[2] or image.endswith(":latest"))
    one = {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
           "imagePullPolicy": "Always" if fresh else "IfNotPresent", "resources": {}} | one  # fmt: skip
    limits = one["resources"].get("limits") or {}
    if limits:
        one["resources"] = one["resources"] | {"requests": limits | (one["resources"].get("requests") or {})}
    return one


def quality(spec: Json) -> str:
    """The pod's class of service, by what its containers request and limit of cpu and memory."""
    guaranteed, some = True, False
    for one in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        resources = one.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            some = some or name in limits or name in requests
            guaranteed = guaranteed and name in limits and requests.get(name) == limits[name]
    return "Guaranteed" if guaranteed and some else "Burstable" if some else "BestEffort"


def defaults(job: Json) -> Json:
    """The Job's own fields; its selector and labels come with the uid, in `labelled`."""
    spec = copy.deepcopy(job.get("spec") or {})
    base = {"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False,
            "manualSelector": False}  # fmt: skip
    spec = base | spec
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    template = spec.setdefault("template", {})
    template["spec"] = pod_defaults(template.get("spec") or {})
    labels = (job.get("metadata") or {}).get("labels") or template.get("metadata", {}).get("labels")
    meta = dict(job["metadata"], generation=1) | ({"labels": labels} if labels else {})
    return {key: value for key, value in job.items() if key != "status"} | {"metadata": meta, "spec": spec}


def labelled(job: Json) -> Json:
    """The selector and the template's labels, which carry the uid."""
    uid, name = job["metadata"]["uid"], job["metadata"]["name"]
    own = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name}
    old = {"controller-uid": uid, "job-name": name}
    template = dict(job["spec"]["template"])
    meta = dict(template.get("metadata") or {})
    template["metadata"] = meta | {"labels": (meta.get("labels") or {}) | own | old}
    selector = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    return job | {"spec": job["spec"] | {"selector": selector, "template": template}}


def faults(job: Json) -> list[Cause]:
    """What the server's validation says of a Job whose types are right."""
    spec, causes = job["spec"], list[Cause]()
    for key in ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        if spec.get(key, 0) < 0:
            causes.append(wrong(f"spec.{key}", spec[key], "must be greater than or equal to 0"))
    if spec["completionMode"] not in ("Indexed", "NonIndexed"):
        causes.append(unsupported("spec.completionMode", spec["completionMode"], ("Indexed", "NonIndexed")))
    if spec["podReplacementPolicy"] not in ("Failed", "TerminatingOrFailed"):
        allowed = ("Failed", "TerminatingOrFailed")
        causes.append(unsupported("spec.podReplacementPolicy", spec["podReplacementPolicy"], allowed))
    pod = spec["template"]["spec"]
    if pod["restartPolicy"] not in ("Never", "OnFailure"):
        where, allowed = "spec.template.spec.restartPolicy", ("Never", "OnFailure")
        if pod["restartPolicy"] == "Always":
            causes.append(missing(where, 'valid values: "OnFailure", "Never"'))
        else:
            causes.append(unsupported(where, pod["restartPolicy"], allowed))
    return causes + _names(job) + _policy(spec) + pod_faults(pod, "spec.template.spec")


def _names(job: Json) -> list[Cause]:
    """The pods carry the Job's name: as a label's value, and, with an index, as their host's name."""
    name, spec = job["metadata"]["name"], job["spec"]
    causes = names.label_value("spec.template.labels", name)
    meta = spec["template"].get("metadata") or {}
    causes += names.labels("spec.template.labels", meta.get("labels") or {})
    if spec["completionMode"] == "Indexed" and spec["completions"] > 0:
        host = f"{name}-{spec['completions'] - 1}"
        for cause in names.label("metadata.name", host)[:1]:
            why = cause.message.split(": ", 2)[-1]
            said = f"will not able to create pod with invalid DNS label: {host}: {why}"
            causes.append(wrong("metadata.name", name, said))
    return causes


def _policy(spec: Json) -> list[Cause]:
    causes: list[Cause] = []
    policy = spec.get("podFailurePolicy")
    if policy is None:
        return causes
    where = "spec.podFailurePolicy"
    if spec["template"]["spec"]["restartPolicy"] != "Never":
        why = 'only "Never" is supported when podFailurePolicy is specified'
        causes.append(wrong("spec.template.spec.restartPolicy", spec["template"]["spec"]["restartPolicy"], why))
    if spec["podReplacementPolicy"] != "Failed":
        causes.append(unsupported("spec.podReplacementPolicy", spec["podReplacementPolicy"], ("Failed",)))
    for index, rule in enumerate(policy.get("rules") or []):
        at = f"{where}.rules[{index}]"
        if rule.get("action") not in ACTIONS:
            causes.append(unsupported(f"{at}.action", rule.get("action"), ACTIONS))
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        if bool(codes) == bool(conditions):
            why = "specifying one of OnExitCodes and OnPodConditions is required"
            causes.append(wrong(at, "", why))
        if codes and codes.get("operator") not in ("In", "NotIn"):
            causes.append(unsupported(f"{at}.onExitCodes.operator", codes.get("operator"), ("In", "NotIn")))
        values = (codes or {}).get("values") or []
        if codes and not values:
            causes.append(wrong(f"{at}.onExitCodes.values", "[]", "at least one value is required"))
        if codes and codes.get("operator") == "In" and 0 in values:
            causes.append(wrong(f"{at}.onExitCodes.values[{values.index(0)}]", 0, "must not be 0 for the In operator"))
        if values != sorted(set(values)):
            causes.append(wrong(f"{at}.onExitCodes.values", values, "must be ordered and must not repeat"))
    return causes


def pod_faults(spec: Json, path: str) -> list[Cause]:
    """What is wrong with a pod's containers and the volumes that they mount."""
    causes: list[Cause] = []
    containers = spec.get("containers") or []
    if not containers:
        causes.append(missing(f"{path}.containers"))
    volumes = {one.get("name") for one in spec.get("volumes") or []}
    for group in ("containers", "initContainers"):
        for index, one in enumerate(spec.get(group) or []):
            at = f"{path}.{group}[{index}]"
            causes += names.label(f"{at}.name", one["name"]) if one.get("name") else [missing(f"{at}.name")]
            if not one.get("image"):
                causes.append(missing(f"{at}.image"))
            for place, mount in enumerate(one.get("volumeMounts") or []):
                if mount.get("name") not in volumes:
                    field = f"{at}.volumeMounts[{place}].name"
                    causes.append(Cause("FieldValueNotFound", field, f'Not found: "{mount.get("name")}"'))
            resources = one.get("resources") or {}
            causes += _amounts(resources, at)
    return causes


def _amounts(resources: Json, at: str) -> list[Cause]:
    causes: list[Cause] = []
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name, value in requests.items():
        where = f"{at}.resources.requests"
        extended = "/" in name
        if extended and name not in limits:
            causes.append(missing(f"{at}.resources.limits", "Limit must be set for non overcommitable resources"))
        elif extended and quantity(value) != quantity(limits[name]):
            causes.append(wrong(where, value, f"must be equal to {name} limit of {limits[name]}"))
        elif name in limits and quantity(value) > quantity(limits[name]):
            why = f"must be less than or equal to {name} limit of {limits[name]}"
            causes.append(wrong(where, value, why))
    return causes
