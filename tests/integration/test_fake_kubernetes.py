"""The fake API server, driven by the real asynchronous client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import client, config

from tests.fakes.kubernetes import KubernetesServer


@pytest.fixture
async def cluster() -> AsyncIterator[KubernetesServer]:
    async with KubernetesServer() as server:
        yield server


@pytest.fixture
async def batch(cluster: KubernetesServer, tmp_path: Path) -> AsyncIterator[Any]:
    api = await config.new_client_from_config(str(cluster.kubeconfig(tmp_path / "kubeconfig")))
    async with api:
        yield client.BatchV1Api(api)


def job(**spec: Any) -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "trainer"}]}
    body = {"suspend": True, "template": {"spec": pod}} | spec
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "labels": {"of": "us"}}, "spec": body}


async def refused(code: int, words: str, asking: Any) -> None:
    with pytest.raises(client.ApiException) as caught:
        await asking
    assert caught.value.status == code
    assert words in json.loads(caught.value.body)["message"]


async def test_release_is_guarded_by_the_uid(batch: Any) -> None:
    made = await batch.create_namespaced_job("training", job())
    other = {"metadata": {"uid": "other"}, "spec": {"suspend": False}}
    merge = {"_content_type": "application/merge-patch+json"}
    await refused(422, "field is immutable", batch.patch_namespaced_job("a", "training", other, **merge))
    mine = {"metadata": {"uid": made.metadata.uid}, "spec": {"suspend": False}}
    assert (await batch.patch_namespaced_job("a", "training", mine, **merge)).spec.suspend is False
    stale = {"metadata": {"resourceVersion": made.metadata.resource_version}, "spec": {"suspend": True}}
    await refused(409, "has been modified", batch.patch_namespaced_job("a", "training", stale, **merge))


async def test_refusals(cluster: KubernetesServer, batch: Any) -> None:
    await refused(404, 'namespaces "nowhere" not found', batch.create_namespaced_job("nowhere", job()))
    raw = client.CustomObjectsApi(batch.api_client)  # the typed client would refuse these by itself
    where = ("batch", "v1", "training", "jobs")
    mistyped = raw.create_namespaced_custom_object(*where, job(backoffLimit="2"))
    await refused(400, "cannot unmarshal string", mistyped)
    strange = raw.create_namespaced_custom_object(*where, job(strange=1), field_validation="Strict")
    await refused(400, 'unknown field "spec.strange"', strange)
    await batch.create_namespaced_job("training", job())
    await refused(409, "already exists", batch.create_namespaced_job("training", job()))
    cluster.forbid("delete", "jobs")
    await refused(403, "cannot delete resource", batch.delete_namespaced_job("a", "training"))
    cluster.token = "another"
    await refused(401, "Unauthorized", batch.read_namespaced_job("a", "training"))


async def test_watch_and_gone(cluster: KubernetesServer, batch: Any) -> None:
    seen = await batch.list_namespaced_job("training", label_selector="of in (us)")
    since = seen.metadata.resource_version
    await batch.create_namespaced_job("training", job())

    async def lines() -> list[dict[str, Any]]:
        asked = await batch.list_namespaced_job_without_preload_content(
            "training", watch=True, resource_version=since, timeout_seconds=1
        )
        return [json.loads(line) for line in (await asked.read()).splitlines()]

    assert [line["type"] for line in await lines()] == ["ADDED"]
    cluster.compact()
    (error,) = await lines()
    assert (error["type"], error["object"]["code"]) == ("ERROR", 410)


async def test_pages_and_faults(cluster: KubernetesServer, batch: Any) -> None:
    for name in ("a", "b", "c"):
        await batch.create_namespaced_job("training", job() | {"metadata": {"name": name}})
    first = await batch.list_namespaced_job("training", limit=2)
    rest = await batch.list_namespaced_job("training", limit=2, _continue=first.metadata._continue)
    assert [one.metadata.name for one in [*first.items, *rest.items]] == ["a", "b", "c"]
    cluster.compact()
    await batch.create_namespaced_job("training", job() | {"metadata": {"name": "d"}})
    cluster.compact()
    await refused(410, "too old", batch.list_namespaced_job("training", _continue=first.metadata._continue))
    cluster.spoil("create", "jobs", "503")
    await refused(503, "shutting down", batch.create_namespaced_job("training", job() | {"metadata": {"name": "e"}}))
    cluster.spoil("create", "jobs", "lost")
    with pytest.raises(Exception, match="isconnected"):
        await batch.create_namespaced_job("training", job() | {"metadata": {"name": "e"}})
    assert (await batch.read_namespaced_job("e", "training")).metadata.name == "e"


async def test_pods_logs_and_bookmarks(cluster: KubernetesServer, batch: Any) -> None:
    cluster.put("pods", {"metadata": {"name": "a-0"}, "status": {"phase": "Running"}})
    cluster.log("a-0", "one")
    cluster.log("a-0", "two")
    core = client.CoreV1Api(batch.api_client)
    assert await core.read_namespaced_pod_log("a-0", "training", tail_lines=1) == "two\n"
    assert (await core.list_namespaced_pod("training", field_selector="status.phase=Running")).items
    asked = await core.list_namespaced_pod_without_preload_content(
        "training", watch=True, timeout_seconds=1, allow_watch_bookmarks=True
    )
    assert [json.loads(line)["type"] for line in (await asked.read()).splitlines()] == ["ADDED", "BOOKMARK"]
