"""The fake cluster behind the fake API server: what Jobs and pods become, seen through the real client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import client, config

from tests.fakes.kubernetes import Cluster

MERGE = {"_content_type": "application/merge-patch+json"}


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster() as server:
        yield server


@pytest.fixture
async def batch(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Any]:
    api = await config.new_client_from_config(str(cluster.kubeconfig(tmp_path / "kubeconfig")))
    async with api:
        yield client.BatchV1Api(api)


@pytest.fixture
def core(batch: Any) -> Any:
    return client.CoreV1Api(batch.api_client)


def job(name: str = "a", *, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    resources = {"limits": {"nvidia.com/gpu": "1", "cpu": "1", "memory": "1Gi"}}
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "trainer:1", "resources": resources}]}
    rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
             {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]  # fmt: skip
    body = {
        "suspend": False, "completionMode": "Indexed", "completions": 1, "parallelism": 1, "backoffLimit": 1,
        "podReplacementPolicy": "Failed", "podFailurePolicy": {"rules": rules}, "template": {"spec": pod},
    } | spec  # fmt: skip
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels or {}}, "spec": body}


def conditions(obj: Any) -> dict[str, tuple[str, str | None]]:
    return {one.type: (one.status, one.reason) for one in obj.status.conditions or []}


async def reasons(core: Any, name: str) -> list[str]:
    found = await core.list_namespaced_event("training", field_selector=f"involvedObject.name={name}")
    return [one.reason for one in sorted(found.items, key=lambda one: int(one.metadata.resource_version))]


def only(cluster: Cluster, name: str = "a") -> dict[str, Any]:
    """The one pod of the Job that is not over."""
    (found,) = [pod for pod in cluster.pods(name) if pod["status"]["phase"] not in ("Failed", "Succeeded")]
    return found


async def test_suspended_released_and_done(cluster: Cluster, batch: Any, core: Any) -> None:
    made = await batch.create_namespaced_job("training", job(suspend=True))
    seen = await batch.read_namespaced_job("a", "training")
    assert conditions(seen) == {"Suspended": ("True", "JobSuspended")} and cluster.pods("a") == []
    go = {"metadata": {"uid": made.metadata.uid}, "spec": {"suspend": False}}
    await batch.patch_namespaced_job("a", "training", go, **MERGE)
    (pod,) = (await core.list_namespaced_pod("training", label_selector="batch.kubernetes.io/job-name=a")).items
    assert pod.metadata.name.startswith("a-0-") and pod.status.phase == "Pending"
    assert pod.metadata.labels["batch.kubernetes.io/controller-uid"] == made.metadata.uid
    assert pod.metadata.labels["batch.kubernetes.io/job-completion-index"] == "0"
    assert pod.metadata.owner_references[0].uid == made.metadata.uid and pod.metadata.owner_references[0].controller
    assert pod.spec.containers[0].resources.requests["nvidia.com/gpu"] == "1"
    cluster.schedule(pod.metadata.name)
    cluster.run(pod.metadata.name)
    seen = await batch.read_namespaced_job("a", "training")
    assert (seen.status.active, seen.status.ready) == (1, 1) and seen.status.start_time
    cluster.succeed(pod.metadata.name)
    seen = await batch.read_namespaced_job("a", "training")
    assert [(one.type, one.status) for one in seen.status.conditions] == [
        ("Suspended", "False"), ("SuccessCriteriaMet", "True"), ("Complete", "True")
    ]  # fmt: skip
    assert (seen.status.succeeded, seen.status.active, seen.status.completed_indexes) == (1, None, "0")
    assert seen.status.completion_time
    assert await reasons(core, "a") == ["Suspended", "Resumed", "SuccessfulCreate", "Completed"]


async def test_suspending_again_deletes_the_pod_and_is_no_failure(cluster: Cluster, batch: Any, core: Any) -> None:
    cluster.slow_termination = True
    await batch.create_namespaced_job("training", job())
    pod = cluster.run(cluster.schedule(only(cluster)))
    await batch.patch_namespaced_job("a", "training", {"spec": {"suspend": True}}, **MERGE)
    (leaving,) = (await core.list_namespaced_pod("training")).items
    assert leaving.metadata.deletion_timestamp and leaving.metadata.name == pod["metadata"]["name"]
    assert (await batch.read_namespaced_job("a", "training")).status.terminating == 1
    cluster.finish_termination()
    seen = await batch.read_namespaced_job("a", "training")
    assert cluster.pods("a") == [] and not seen.status.failed and not seen.status.terminating
    assert seen.status.start_time is None
    await batch.patch_namespaced_job("a", "training", {"spec": {"suspend": False}}, **MERGE)
    assert only(cluster)["metadata"]["name"] != pod["metadata"]["name"]


async def test_failures_are_counted_and_some_are_final(cluster: Cluster, batch: Any) -> None:
    await batch.create_namespaced_job("training", job())
    cluster.evict(cluster.run(cluster.schedule(only(cluster))))
    assert not (await batch.read_namespaced_job("a", "training")).status.failed  # ignored by the policy
    for failed in (1, 2):
        pod = cluster.fail(cluster.run(cluster.schedule(only(cluster))), reason="OOMKilled")
        assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137
        assert (await batch.read_namespaced_job("a", "training")).status.failed == failed
    seen = await batch.read_namespaced_job("a", "training")
    assert conditions(seen) == {
        "FailureTarget": ("True", "BackoffLimitExceeded"), "Failed": ("True", "BackoffLimitExceeded")
    }  # fmt: skip
    assert len(cluster.pods("a")) == 3 and seen.status.completion_time is None
    await batch.create_namespaced_job("training", job("b"))
    cluster.fail(cluster.run(cluster.schedule(only(cluster, "b"))), 42)
    seen = await batch.read_namespaced_job("b", "training")
    assert conditions(seen)["Failed"] == ("True", "PodFailurePolicy")
    assert "exit code 42 matching FailJob rule at index 1" in seen.status.conditions[-1].message


async def test_deadline_and_time_to_live(cluster: Cluster, batch: Any, core: Any) -> None:
    start = datetime.fromisoformat("2030-01-01T00:00:00+00:00")
    cluster.clock = lambda: start
    cluster.slow_termination = True
    await batch.create_namespaced_job("training", job(activeDeadlineSeconds=60, ttlSecondsAfterFinished=30))
    cluster.run(cluster.schedule(only(cluster)))
    cluster.advance(59)
    assert not conditions(await batch.read_namespaced_job("a", "training"))
    cluster.advance(1)
    seen = await batch.read_namespaced_job("a", "training")
    assert conditions(seen) == {"FailureTarget": ("True", "DeadlineExceeded")} and seen.status.terminating == 1
    cluster.finish_termination()
    seen = await batch.read_namespaced_job("a", "training")
    assert conditions(seen)["Failed"] == ("True", "DeadlineExceeded") and seen.status.failed == 1
    cluster.advance(30)
    assert not (await batch.list_namespaced_job("training")).items
    assert not (await core.list_namespaced_pod("training")).items


async def test_deleting_a_job_leaves_its_pods_unless_told(cluster: Cluster, batch: Any, core: Any) -> None:
    for name, policy in (("a", None), ("b", "Background"), ("c", "Foreground")):
        await batch.create_namespaced_job("training", job(name))
        cluster.run(cluster.schedule(only(cluster, name)))
        more = {"propagation_policy": policy} if policy else {}
        await batch.delete_namespaced_job(name, "training", **more)
    assert not (await batch.list_namespaced_job("training")).items
    (left,) = (await core.list_namespaced_pod("training")).items
    assert left.metadata.name.startswith("a-0-") and not left.metadata.owner_references


async def test_a_pod_is_shaped_as_a_real_one_at_every_step(cluster: Cluster, batch: Any, core: Any) -> None:
    await batch.create_namespaced_job("training", job())
    name = only(cluster)["metadata"]["name"]

    async def read() -> Any:
        return await core.read_namespaced_pod(name, "training")

    cluster.unschedulable(name, "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    assert conditions(await read()) == {"PodScheduled": ("False", "Unschedulable")}
    cluster.schedule(name, "node-0")
    seen = await read()
    assert seen.spec.node_name == "node-0" and conditions(seen)["PodScheduled"] == ("True", None)
    cluster.pull(name)
    cluster.image_pull_backoff(name)
    seen = await read()
    (one,) = seen.status.container_statuses
    assert (seen.status.phase, one.state.waiting.reason) == ("Pending", "ImagePullBackOff")
    cluster.run(name)
    seen = await read()
    (one,) = seen.status.container_statuses
    assert seen.status.phase == "Running" and one.ready and one.state.running.started_at
    assert one.container_id.startswith("containerd://") and conditions(seen)["Ready"] == ("True", None)
    assert all(condition.last_transition_time for condition in seen.status.conditions)
    cluster.fail(name, 7)
    seen = await read()
    ended = seen.status.container_statuses[0].state.terminated
    assert (seen.status.phase, ended.exit_code, ended.reason) == ("Failed", 7, "Error")
    assert ended.started_at == one.state.running.started_at and ended.finished_at and ended.container_id
    assert conditions(seen)["Ready"] == ("False", "PodFailed")
    told = await reasons(core, name)
    assert {"FailedScheduling", "Scheduled", "Pulling", "Failed", "BackOff", "Pulled", "Created", "Started"} <= {*told}
    with pytest.raises(ValueError, match="is over"):
        cluster.run(name)


async def test_a_lost_node_says_no_end(cluster: Cluster, batch: Any, core: Any) -> None:
    cluster.slow_termination = True
    await batch.create_namespaced_job("training", job())
    pod = cluster.run(cluster.schedule(only(cluster)))
    cluster.lose_node(pod)
    seen = await core.read_namespaced_pod(pod["metadata"]["name"], "training")
    assert seen.status.phase == "Running" and seen.metadata.deletion_timestamp
    assert conditions(seen)["DisruptionTarget"] == ("True", "DeletionByTaintManager")
    assert conditions(await core.read_node("node-0"))["Ready"] == ("Unknown", "NodeStatusUnknown")
    cluster.finish_termination()
    (again,) = cluster.pods("a")
    assert again["metadata"]["name"] != pod["metadata"]["name"]
    assert not (await batch.read_namespaced_job("a", "training")).status.failed


async def until(true: Any, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


def phases(cluster: Cluster, name: str) -> list[str]:
    return [pod["status"]["phase"] for pod in cluster.pods(name)]


async def test_autorun(cluster: Cluster, batch: Any) -> None:
    ran: list[str] = []
    most = [0, 0]

    async def on_start(pod: dict[str, Any]) -> int | None:
        ran.append(pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])
        most[0] += 1
        most[1] = max(most)
        await asyncio.sleep(0.3 if ran[-1] != "killed" else 3600)
        most[0] -= 1
        return 42 if ran[-1] == "bad" else None

    running = cluster.autorun(seconds=0.01, capacity=2, on_start=on_start)
    for name in ("a", "b", "c", "d"):
        await batch.create_namespaced_job("training", job(name))
    await until(lambda: [phases(cluster, name) for name in "abcd"] == [["Succeeded"]] * 4)
    assert sorted(ran) == ["a", "b", "c", "d"] and most[1] == 2
    await batch.create_namespaced_job("training", job("bad"))
    await until(lambda: phases(cluster, "bad") == ["Failed"])
    assert conditions(await batch.read_namespaced_job("bad", "training"))["Failed"] == ("True", "PodFailurePolicy")
    await batch.create_namespaced_job("training", job("killed"))
    await until(lambda: "killed" in ran)
    await batch.delete_namespaced_job("killed", "training", propagation_policy="Background")
    await until(lambda: not running.tasks)
    assert not running.errors


async def refused(code: int, words: str, asking: Any) -> None:
    with pytest.raises(client.ApiException) as caught:
        await asking
    assert caught.value.status == code
    assert words in json.loads(caught.value.body)["message"]


async def told(core: Any, name: str, reason: str) -> Any:
    asked = f"involvedObject.name={name},reason={reason}"
    (found,) = (await core.list_namespaced_event("training", field_selector=asked)).items
    return found


async def test_a_quota_refuses_the_pod_and_not_the_job(cluster: Cluster, batch: Any, core: Any) -> None:
    hard = {"requests.nvidia.com/gpu": "1", "requests.memory": "4Gi", "count/jobs.batch": "3"}
    cluster.put("resourcequotas", {"metadata": {"name": "team"}, "spec": {"hard": hard}})
    await batch.create_namespaced_job("training", job("a"))
    await batch.create_namespaced_job("training", job("b"))
    event = await told(core, "b", "FailedCreate")
    assert event.type == "Warning" and event.involved_object.kind == "Job"
    assert (
        "exceeded quota: team, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=1, " in event.message
    )
    assert cluster.pods("b") == []
    quota = await core.read_namespaced_resource_quota("team", "training")
    assert quota.status.used == {"requests.nvidia.com/gpu": "1", "requests.memory": "1Gi", "count/jobs.batch": "2"}
    cluster.succeed(cluster.run(cluster.schedule(only(cluster))))
    assert len(cluster.pods("b")) == 1  # the place is free
    bare = job("c")
    del bare["spec"]["template"]["spec"]["containers"][0]["resources"]
    await batch.create_namespaced_job("training", bare)
    assert (
        "failed quota: team: must specify requests.memory for: main" in (await told(core, "c", "FailedCreate")).message
    )
    await refused(
        403, "exceeded quota: team, requested: count/jobs.batch=1", batch.create_namespaced_job("training", job("d"))
    )


async def test_restricted_namespaces_and_webhooks_refuse(cluster: Cluster, batch: Any, core: Any) -> None:
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.put("namespaces", {"metadata": {"name": "training", "labels": level}})
    await batch.create_namespaced_job("training", job("a"))
    message = (await told(core, "a", "FailedCreate")).message
    assert (
        'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "main" must' in message
    )
    assert "runAsNonRoot != true" in message and cluster.pods("a") == []
    safe = job("b")
    pod = safe["spec"]["template"]["spec"]
    pod["securityContext"] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    own = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod["containers"][0]["securityContext"] = own
    await batch.create_namespaced_job("training", safe)
    assert len(cluster.pods("b")) == 1
    cluster.refuse("images come from our registry", matches=lambda obj: obj["metadata"]["name"] == "c")
    await refused(400, "denied the request: images come", batch.create_namespaced_job("training", job("c")))


async def test_what_the_server_serves(cluster: Cluster, batch: Any, core: Any) -> None:
    api = batch.api_client
    assert (await client.CoreApi(api).get_api_versions()).versions == ["v1"]
    assert [one.name for one in (await client.ApisApi(api).get_api_versions()).groups] == [
        "batch", "apiextensions.k8s.io", "authorization.k8s.io"
    ]  # fmt: skip
    assert [one.name for one in (await batch.get_api_resources()).resources] == ["jobs"]
    served = {one.name: one.namespaced for one in (await core.get_api_resources()).resources}
    assert served["pods"] and served["resourcequotas"] and served["persistentvolumeclaims"] and not served["nodes"]
    assert (await client.VersionApi(api).get_code()).git_version == "v1.36.2"
    cluster.put("nodes", {"metadata": {"name": "gpu-1", "labels": {"nvidia.com/gpu.product": "H100"}}})
    (node,) = (await core.list_node(label_selector="nvidia.com/gpu.product")).items
    assert node.metadata.name == "gpu-1" and node.metadata.namespace is None
    cluster.put("persistentvolumeclaims", {"metadata": {"name": "data"}, "status": {"phase": "Bound"}})
    assert (await core.read_namespaced_persistent_volume_claim("data", "training")).status.phase == "Bound"
    assert (await core.read_namespace("training")).status.phase == "Active"
    await refused(404, "not found", core.read_namespaced_resource_quota("team", "training"))
    crd = client.ApiextensionsV1Api(api)
    await refused(404, "not found", crd.read_custom_resource_definition("workloads.kueue.x-k8s.io"))
    custom = client.CustomObjectsApi(api)
    queues = ("kueue.x-k8s.io", "v1beta2", "training", "localqueues")
    await refused(404, "could not find", custom.list_namespaced_custom_object(*queues))
    cluster.install_kueue()
    assert (await crd.read_custom_resource_definition("workloads.kueue.x-k8s.io")).spec.names.plural == "workloads"
    assert len((await custom.list_namespaced_custom_object(*queues))["items"]) == 1
    assert cluster.counts["list", "nodes"] == 1


async def test_kueue_decides_when(cluster: Cluster, batch: Any) -> None:
    label = {"kueue.x-k8s.io/queue-name": "training"}
    await batch.create_namespaced_job("training", job("before", labels=label))
    assert len(cluster.pods("before")) == 1  # without Kueue, a label
    kueue = cluster.install_kueue()
    made = await batch.create_namespaced_job("training", job(labels=label, suspend=True))
    go = {"metadata": {"uid": made.metadata.uid}, "spec": {"suspend": False}}
    await batch.patch_namespaced_job("a", "training", go, **MERGE)
    assert (await batch.read_namespaced_job("a", "training")).spec.suspend and cluster.pods("a") == []

    async def workload() -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
        custom = client.CustomObjectsApi(batch.api_client)
        where = ("kueue.x-k8s.io", "v1beta2", "training", "workloads")
        asked = f"kueue.x-k8s.io/job-uid={made.metadata.uid}"
        (found,) = (await custom.list_namespaced_custom_object(*where, label_selector=asked))["items"]
        return found, {one["type"]: (one["status"], one["reason"]) for one in found["status"]["conditions"]}

    found, why = await workload()
    assert found["metadata"]["name"].startswith("job-a-") and why == {"QuotaReserved": ("False", "Pending")}
    kueue.wait(cluster.job("a"), "no room today")
    assert (await workload())[0]["status"]["conditions"][0]["message"] == "no room today"
    cluster.admit("a")
    cluster.run(cluster.schedule(only(cluster)))
    assert (await workload())[1]["Admitted"] == ("True", "Admitted")
    cluster.preempt("a")
    assert cluster.pods("a") == [] and (await batch.read_namespaced_job("a", "training")).spec.suspend
    why = (await workload())[1]
    assert why["Evicted"] == ("True", "Preempted") and why["QuotaReserved"] == ("False", "Pending")
    cluster.admit("a")
    cluster.succeed(cluster.run(cluster.schedule(only(cluster))))
    assert (await workload())[1]["Finished"] == ("True", "Succeeded")
    await batch.create_namespaced_job("training", job("b", labels={"kueue.x-k8s.io/queue-name": "nowhere"}))
    with pytest.raises(ValueError, match="LocalQueue nowhere doesn't exist"):
        cluster.admit("b")


class Watching:
    """One raw watch of Jobs, its lines as they come."""

    def __init__(self, batch: Any, **asked: Any) -> None:
        self.batch, self.asked = batch, {"timeout_seconds": 60} | asked
        self.seen: list[dict[str, Any]] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        stream = await self.batch.list_namespaced_job_without_preload_content("training", watch=True, **self.asked)
        try:
            async for line in stream.content:
                self.seen.append(json.loads(line))
        finally:
            stream.close()

    @property
    def types(self) -> list[str]:
        return [one["type"] for one in self.seen]


async def test_watches_end_fall_silent_and_mark_time(cluster: Cluster, batch: Any) -> None:
    cluster.streams.bookmark_interval = 0.05
    plain, marked = Watching(batch), Watching(batch, allow_watch_bookmarks=True)
    await until(lambda: len(marked.seen) >= 2)
    assert cluster.streams.now == 2 and {*marked.types} == {"BOOKMARK"} and not plain.seen
    await batch.create_namespaced_job("training", job(suspend=True))
    await until(lambda: {"ADDED", "MODIFIED"} <= {*plain.types} and "ADDED" in marked.types)
    now = str(cluster.store.version)
    await until(lambda: marked.seen[-1]["object"]["metadata"]["resourceVersion"] == now)
    await until(lambda: marked.types[-1] == "BOOKMARK")
    assert marked.seen[-1]["object"]["metadata"]["resourceVersion"] == now == str(cluster.store.version)
    none = Watching(batch, allow_watch_bookmarks=True, label_selector="of=nobody")
    for number in range(40):  # what does not fit keeps no time from being marked
        cluster.put("jobs", job("a") | {"metadata": {"name": "a", "annotations": {"n": str(number)}}})
        await asyncio.sleep(0.01)
    assert none.types and {*none.types} == {"BOOKMARK"}
    none.task.cancel()
    await until(lambda: cluster.streams.now == 2)
    since = str(cluster.store.version)
    cluster.silence_watches()
    await asyncio.sleep(0.2)  # what was on its way when they fell silent still comes
    heard, later = len(plain.seen) + len(marked.seen), Watching(batch, resource_version=since)
    await batch.create_namespaced_job("training", job("b", suspend=True))
    await until(lambda: "ADDED" in later.types)
    await asyncio.sleep(0.2)
    assert len(plain.seen) + len(marked.seen) == heard and cluster.streams.now == 3
    cluster.close_watches()
    await asyncio.gather(plain.task, marked.task, later.task)
    assert (cluster.streams.now, cluster.streams.most, cluster.streams.opened) == (0, 3, 4)
    torn, left = Watching(batch), Watching(batch)
    await until(lambda: cluster.streams.now == 2)
    left.task.cancel()
    await until(lambda: cluster.streams.now == 1)  # who leaves is noticed, though nothing is written
    cluster.close_watches(cut=True)
    with pytest.raises(Exception, match=r"not complete|Expecting|Unterminated|delimiter"):
        await torn.task
    cluster.compact()
    await batch.create_namespaced_job("training", job("c"))
    old = Watching(batch, resource_version=since)
    await old.task
    assert old.types == ["ERROR"] and old.seen[0]["object"]["code"] == 410
    assert cluster.counts["watch", "jobs"] == 7


async def test_a_thousand_running_jobs_among_ten_thousand(cluster: Cluster, batch: Any) -> None:
    done = [{"type": "Complete", "status": "True", "lastTransitionTime": cluster.store.now()}]
    for index in range(10000):
        cluster.put("jobs", job(f"old-{index}", labels={"of": "old"}) | {"status": {"conditions": done}})
    cluster.autorun(seconds=3600)
    since = str(cluster.store.version)
    watching, start = Watching(batch, resource_version=since), time.process_time()
    async with asyncio.TaskGroup() as group:
        for index in range(1000):
            group.create_task(batch.create_namespaced_job("training", job(f"new-{index}", labels={"of": "new"})))

    def ready() -> int:
        seen = [one["object"] for one in watching.seen]
        return len({one["metadata"]["name"] for one in seen if one.get("status", {}).get("ready")})

    await until(lambda: ready() == 1000, 60)
    created = time.process_time()
    names, after = list[str](), None
    while not names or after:
        more = {"_continue": after} if after else {}
        page = await batch.list_namespaced_job_without_preload_content("training", limit=500, **more)
        found = json.loads(await page.read())
        names += [one["metadata"]["name"] for one in found["items"]]
        after = found["metadata"].get("continue")
    assert len(names) == len(set(names)) == 11000 and cluster.counts["list", "jobs"] == 22
    asked = await batch.list_namespaced_job_without_preload_content("training", label_selector="of=new")
    assert len(json.loads(await asked.read())["items"]) == 1000
    listed = time.process_time()
    assert created - start < 30 and listed - created < 10  # of one core, the client's part included; 3 and 1 here


async def test_dry_runs_judge_and_do_nothing(cluster: Cluster, batch: Any) -> None:
    shown = await batch.create_namespaced_job("training", job(), dry_run="All")
    assert shown.metadata.uid and not (await batch.list_namespaced_job("training")).items
    cluster.refuse("not today")
    await refused(400, "not today", batch.create_namespaced_job("training", job(), dry_run="All"))
    cluster.admission.refusals.clear()
    await batch.create_namespaced_job("training", job(suspend=True))
    go = {"spec": {"suspend": False}}
    assert not (await batch.patch_namespaced_job("a", "training", go, dry_run="All", **MERGE)).spec.suspend
    await batch.delete_namespaced_job("a", "training", dry_run="All")
    assert (await batch.read_namespaced_job("a", "training")).spec.suspend


async def test_jobs_that_the_server_refuses(cluster: Cluster, batch: Any) -> None:
    async def said(words: str, body: dict[str, Any]) -> None:
        raw = client.CustomObjectsApi(batch.api_client)
        await refused(422, words, raw.create_namespaced_custom_object("batch", "v1", "training", "jobs", body))

    def with_pod(**spec: Any) -> dict[str, Any]:
        body = job()
        body["spec"]["template"]["spec"] |= spec
        return body

    await said("must be no more than 63 bytes", job("a" * 64))
    await said("will not able to create pod with invalid DNS label: a.b-0", job("a.b"))
    await said('restartPolicy: Required value: valid values: "OnFailure", "Never"', with_pod(restartPolicy="Always"))
    await said('only "Never" is supported when podFailurePolicy', with_pod(restartPolicy="OnFailure"))
    await said("spec.template.spec.containers: Required value", with_pod(containers=[]))
    mounts = [{"name": "data", "mountPath": "/data"}]
    lost = with_pod(containers=[{"name": "main", "image": "trainer:1", "volumeMounts": mounts}])
    await said('containers[0].volumeMounts[0].name: Not found: "data"', lost)
    unlimited = {"requests": {"nvidia.com/gpu": "1"}}
    greedy = with_pod(containers=[{"name": "main", "image": "trainer:1", "resources": unlimited}])
    await said("Limit must be set for non overcommitable resources", greedy)
    await said('Unsupported value: "TerminatingOrFailed"', job(podReplacementPolicy="TerminatingOrFailed"))
    zero = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0]}}]}
    await said("must not be 0 for the In operator", job(podFailurePolicy=zero))
    await said("must be greater than or equal to 0", job(activeDeadlineSeconds=-1))
    made = await batch.create_namespaced_job("training", job())
    other = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "other"}]}}}}
    await refused(422, "field is immutable", batch.patch_namespaced_job("a", "training", other, **MERGE))
    status = {"status": {"succeeded": 1}}
    assert not (await batch.patch_namespaced_job("a", "training", status, **MERGE)).status.succeeded
    again = job("b") | {"metadata": {"name": "b", "resourceVersion": made.metadata.resource_version}}
    await refused(500, "resourceVersion should not be set", batch.create_namespaced_job("training", again))


async def test_logs_begin_with_the_container_and_end_with_it(cluster: Cluster, batch: Any, core: Any) -> None:
    await batch.create_namespaced_job("training", job())
    name = only(cluster)["metadata"]["name"]
    cluster.schedule(name)
    await refused(400, "is waiting to start: ContainerCreating", core.read_namespaced_pod_log(name, "training"))
    cluster.image_pull_backoff(name)
    await refused(400, "trying and failing to pull image", core.read_namespaced_pod_log(name, "training"))
    cluster.run(name)
    cluster.log(name, "one")
    asked = await core.read_namespaced_pod_log_without_preload_content(name, "training", follow=True)
    assert await asked.content.readline() == b"one\n"
    cluster.log(name, "two")
    assert await asked.content.readline() == b"two\n"
    cluster.succeed(name)
    assert await asked.content.readline() == b""
    stamped = await core.read_namespaced_pod_log(name, "training", timestamps=True, tail_lines=1)
    assert stamped.endswith("Z two\n")
    cluster.forbid("get", "pods/log")
    await refused(403, 'cannot get resource "pods/log"', core.read_namespaced_pod_log(name, "training"))


async def test_deleting_a_running_pod_is_a_failure_of_the_job(cluster: Cluster, batch: Any, core: Any) -> None:
    cluster.slow_termination = True
    await batch.create_namespaced_job("training", job())
    pod = cluster.run(cluster.schedule(only(cluster)))
    name = pod["metadata"]["name"]
    assert (await core.delete_namespaced_pod(name, "training")).metadata.deletion_grace_period_seconds == 30
    assert len(cluster.pods("a")) == 1  # replaced when it has failed, and not before
    cluster.finish_termination()
    (again,) = cluster.pods("a")
    assert again["metadata"]["name"] != name
    assert (await batch.read_namespaced_job("a", "training")).status.failed == 1
    early = job("b", podReplacementPolicy="TerminatingOrFailed")
    del early["spec"]["podFailurePolicy"]
    await batch.create_namespaced_job("training", early)
    pod = cluster.run(cluster.schedule(only(cluster, "b")))
    await core.delete_namespaced_pod(pod["metadata"]["name"], "training")
    assert len(cluster.pods("b")) == 2


async def test_what_the_client_may(cluster: Cluster, batch: Any) -> None:
    reviews = client.AuthorizationV1Api(batch.api_client)

    async def may(verb: str, **what: str) -> bool:
        spec = {"resourceAttributes": {"namespace": "training", "verb": verb} | what}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
        return bool((await reviews.create_self_subject_access_review(body)).status.allowed)

    cluster.forbid("get", "pods/log")
    assert await may("create", group="batch", resource="jobs")
    assert not await may("get", resource="pods", subresource="log")


async def test_pods_may_only_do_what_comes_next(cluster: Cluster, batch: Any) -> None:
    await batch.create_namespaced_job("training", job())
    pod = only(cluster)
    for step, words in (
        (cluster.run, "is on no node"), (cluster.succeed, "is on no node"), (cluster.pull, "is on no node")
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            step(pod)
    cluster.schedule(pod)
    with pytest.raises(ValueError, match="is Pending and not Running"):
        cluster.succeed(pod)
    cluster.run(pod)
    with pytest.raises(ValueError, match="is Running and not Pending"):
        cluster.image_pull_backoff(pod)
    cluster.put("pods", {"metadata": {"name": "loose"}, "status": {"phase": "Running"}})  # of no Job
    assert cluster.pod("loose")["status"]["phase"] == "Running"


async def test_a_spoiled_request_is_not_a_failed_pod(cluster: Cluster, batch: Any) -> None:
    cluster.spoil("create", "jobs", "503")
    await refused(503, "shutting down", batch.create_namespaced_job("training", job()))
    cluster.spoil("create", "jobs", "lost")
    with pytest.raises(Exception, match="isconnected"):
        await batch.create_namespaced_job("training", job())
    assert only(cluster)["status"]["phase"] == "Pending"
