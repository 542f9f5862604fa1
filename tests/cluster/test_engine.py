"""The Kubernetes engine's own cases against a real cluster: `make test-cluster`, KUBECONFIG, SIGNALBOX_TEST_IMAGE.

The trainings are shell scripts in the exact Job that would be approved: only image and command differ. Nothing is
fetched from anywhere but the image, which the nodes may already have.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from kubernetes.aio import client

from bot.core.canonical import digest_of
from tests.cluster.conftest import Place
from tools.engines.base import EngineRefused, NameTaken, Observation, Standing, StopReason, Submission
from tools.engines.kubernetes.engine import KubernetesEngine
from tools.engines.kubernetes.manifest import ClusterSettings
from tools.progress import PREFIX
from tools.spec import parse_spec

WAIT = 120.0
ENDS_WELL = f"""echo '{PREFIX}{{"step": 1, "steps": 2}}'; sleep 3; echo done"""


def engine_of(place: Place) -> KubernetesEngine:
    settings = ClusterSettings(
        namespace=place.namespace,
        image_cpu=place.image,
        cpu_cores=Decimal("0.1"),
        memory_gib=Decimal("0.0625"),
        ephemeral_storage="64Mi",
        shared_memory="16Mi",
        grace_seconds=5,
    )
    return KubernetesEngine(settings, kubeconfig=place.kubeconfig, look_seconds=0.5)


@pytest.fixture
async def engine(place: Place) -> AsyncIterator[KubernetesEngine]:
    async with engine_of(place) as made:
        yield made


def submission(engine: KubernetesEngine, name: str, script: str, **changes: Any) -> Submission:
    """A training of digits whose container runs this script instead."""
    manifest = engine.render(parse_spec("digits", {"max_runtime_minutes": 10}))
    job = manifest["job"]
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["command"], container["args"] = ["/bin/sh", "-c"], [script]
    container["image"] = changes.pop("image", container["image"])
    job["spec"] |= changes
    return Submission(
        name=name,
        proposal_id="p1",
        digest=digest_of(manifest),
        manifest=manifest,
        run_id="run-1",
        tracking_uri="http://mlflow.invalid:5000",
    )


async def started(engine: KubernetesEngine, asked: Submission) -> str:
    uid = await engine.create(asked)
    await engine.release(asked.name, uid)
    return uid


async def until(
    engine: KubernetesEngine, name: str, holds: Callable[[Observation], bool], seconds: float = WAIT
) -> Observation:
    """What is observed once it holds; fails with the last thing seen."""
    deadline = time.monotonic() + seconds
    while True:
        seen = await engine.observe(name)
        if holds(seen):
            return seen
        assert time.monotonic() < deadline, f"after {seconds:.0f} s: {seen}"
        await asyncio.sleep(0.5)


def ended(seen: Observation) -> bool:
    return seen.standing is Standing.ENDED


def running(seen: Observation) -> bool:
    return seen.standing is Standing.RUNNING and bool(seen.attempts)


async def test_a_training_from_creation_to_its_end(engine: KubernetesEngine) -> None:
    asked = submission(engine, "whole-1", ENDS_WELL)
    uid = await engine.create(asked)
    seen = await engine.observe("whole-1")
    assert (seen.standing, seen.uid, seen.digest, seen.attempts) == (Standing.SUSPENDED, uid, asked.digest, ())
    assert await engine.create(asked) == uid, "created again is the same"
    await engine.release("whole-1", uid)
    await engine.release("whole-1", uid)
    await until(engine, "whole-1", running)
    seen = await until(engine, "whole-1", ended)
    assert seen.exit_code == 0 and len(seen.attempts) == 1
    held = seen.attempts[0]
    assert held.ended_at is not None and held.ended_at > held.started_at and not held.estimated
    assert "done" in await engine.logs("whole-1", 10)


async def test_nothing_starts_unreleased_or_under_another_uid(engine: KubernetesEngine) -> None:
    asked = submission(engine, "guard-1", ENDS_WELL)
    uid = await engine.create(asked)
    with pytest.raises(EngineRefused):
        await engine.release("guard-1", "00000000-0000-0000-0000-000000000000")
    await asyncio.sleep(3)
    seen = await engine.observe("guard-1")
    assert seen.standing is Standing.SUSPENDED and seen.uid == uid and not seen.attempts
    with pytest.raises(NameTaken):
        await engine.create(submission(engine, "guard-1", "echo another"))


async def test_a_failure_is_told_with_its_exit_status(engine: KubernetesEngine) -> None:
    await started(engine, submission(engine, "fails-1", "echo sorry; exit 7", backoffLimit=0))
    seen = await until(engine, "fails-1", ended)
    assert seen.exit_code == 7 and len(seen.attempts) == 1


async def test_every_try_is_an_attempt(engine: KubernetesEngine) -> None:
    await started(engine, submission(engine, "tries-1", "exit 9", backoffLimit=1))
    seen = await until(engine, "tries-1", ended)
    assert len(seen.attempts) == 2 and all(attempt.ended_at for attempt in seen.attempts)


async def test_cancelled_it_gets_sigterm_and_its_grace(engine: KubernetesEngine) -> None:
    script = "trap 'echo saving; sleep 1; exit 3' TERM; while true; do sleep 0.2; done"
    uid = await started(engine, submission(engine, "cancel-1", script))
    await until(engine, "cancel-1", running)
    await engine.cancel("cancel-1", uid)
    seen = await until(engine, "cancel-1", ended)
    assert seen.stopped is StopReason.CANCELLED and seen.attempts[0].ended_at is not None
    await engine.cancel("cancel-1", uid)


async def test_cancelled_before_its_release_it_never_starts(engine: KubernetesEngine) -> None:
    uid = await engine.create(submission(engine, "cancel-2", ENDS_WELL))
    await engine.cancel("cancel-2", uid)
    await engine.release("cancel-2", uid)
    await asyncio.sleep(3)
    seen = await engine.observe("cancel-2")
    assert seen.standing is Standing.ENDED and not seen.attempts


async def test_an_image_that_is_not_there_is_told(engine: KubernetesEngine) -> None:
    asked = submission(engine, "image-1", ENDS_WELL, image="localhost/signalbox/no-such-image:0")
    uid = await started(engine, asked)
    seen = await until(engine, "image-1", lambda seen: "cannot be pulled" in seen.waiting)
    assert "no-such-image" in seen.waiting and "Check the image" in seen.waiting
    await engine.cancel("image-1", uid)
    await until(engine, "image-1", ended)


async def test_a_quota_that_is_used_up_is_told(engine: KubernetesEngine, place: Place) -> None:
    if place.admin is None:
        pytest.skip("the namespace was given: its quota is not the tests' to change")
    core = client.CoreV1Api(place.admin)
    quota: Any = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await core.create_namespaced_resource_quota(place.namespace, quota)
    await asyncio.sleep(2)
    uid = await started(engine, submission(engine, "quota-1", ENDS_WELL))
    seen = await until(engine, "quota-1", lambda seen: "quota" in seen.waiting)
    assert seen.standing is Standing.PENDING and not seen.attempts
    await engine.cancel("quota-1", uid)


async def test_the_deadline_is_the_clusters_own(engine: KubernetesEngine) -> None:
    await started(engine, submission(engine, "late-1", "sleep 600", activeDeadlineSeconds=5))
    seen = await until(engine, "late-1", ended)
    assert seen.stopped is StopReason.DEADLINE


async def test_a_job_that_its_time_to_live_removed_is_absent(engine: KubernetesEngine) -> None:
    await started(engine, submission(engine, "ttl-1", "exit 0", ttlSecondsAfterFinished=3))
    await until(engine, "ttl-1", lambda seen: seen.standing is Standing.ABSENT)


async def test_another_bot_finds_the_training_in_mid_run(place: Place) -> None:
    async with engine_of(place) as before:
        uid = await started(before, submission(before, "restart-1", "sleep 8; echo woke"))
        seen = await until(before, "restart-1", running)
    began = seen.attempts[0].started_at
    async with engine_of(place) as after:
        seen = await until(after, "restart-1", ended)
        assert (seen.uid, seen.exit_code) == (uid, 0)
        assert [attempt.started_at for attempt in seen.attempts] == [began]
        assert "woke" in await after.logs("restart-1", 5)


async def test_the_account_may_do_nothing_else(engine: KubernetesEngine, place: Place) -> None:
    """What the Role leaves out is left out: no Secret, no deletion, no pod of one's own."""
    if place.admin is None:
        pytest.skip("the account was given")
    from kubernetes.aio import config

    async with await config.new_client_from_config(place.kubeconfig) as own:
        core, batch = client.CoreV1Api(own), client.BatchV1Api(own)
        for act in (
            core.list_namespaced_secret(place.namespace),
            core.create_namespaced_pod(place.namespace, {"metadata": {"name": "x"}, "spec": {"containers": []}}),
            batch.delete_namespaced_job("x", place.namespace),
            core.list_namespaced_pod("kube-system"),
        ):
            with pytest.raises(client.ApiException) as refused:
                await act
            assert refused.value.status == 403
    with contextlib.suppress(EngineRefused):
        await engine.preflight(parse_spec("digits", {}))
