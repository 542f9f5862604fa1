"""The Kubernetes engine's own cases against a real cluster: `make test-cluster`, KUBECONFIG, SIGNALBOX_TEST_IMAGE.

The trainings are shell scripts in the exact Job that would be approved: only image and command differ. Nothing is
fetched from anywhere but the image, which the nodes may already have.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from kubernetes.aio import client, config

from bot.core.canonical import digest_of
from tests.cluster.conftest import MARK, Place
from tools.engines.base import (
    EngineRefused,
    EngineUnavailable,
    NameTaken,
    Observation,
    Standing,
    StopReason,
    Submission,
)
from tools.engines.kubernetes.engine import KubernetesEngine
from tools.engines.kubernetes.manifest import ClusterSettings
from tools.progress import PREFIX, ExitCode
from tools.spec import parse_spec

pytestmark = pytest.mark.timeout(900)
WAIT = 240.0  # a node may have to pull the image, and may be slow
STEP = f"""echo '{PREFIX}{{"event": "progress", "step": 1, "steps": 2}}'"""
ENDS_WELL = f"{STEP}; sleep 8; echo done"


def engine_of(place: Place) -> KubernetesEngine:
    settings = ClusterSettings(
        namespace=place.namespace,
        image_cpu=place.image,
        cpu_cores=Decimal("0.1"),
        memory_gib=Decimal("0.125"),
        ephemeral_storage="64Mi",
        shared_memory="16Mi",
        grace_seconds=5,
        ttl_seconds=600,
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
        name=f"{name}-{MARK}",
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
    engine: KubernetesEngine, asked: Submission, holds: Callable[[Observation], bool], seconds: float = WAIT
) -> Observation:
    """What is observed once it holds; fails with the last thing seen. A cluster that fails is asked again, as the bot
    does."""
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            seen = await engine.observe(asked.name)
            if holds(seen):
                return seen
            last = str(seen)
        except EngineUnavailable as error:
            last = str(error)
        await asyncio.sleep(0.5)
    pytest.fail(f"{asked.name} after {seconds:.0f} s: {last}")


def ended(seen: Observation) -> bool:
    return seen.standing is Standing.ENDED


def stepped(seen: Observation) -> bool:
    """It runs, and what it printed was read."""
    assert not ended(seen), f"it ended before it was seen to run: {seen}"
    return seen.standing is Standing.RUNNING and seen.progress.step == 1


async def test_a_training_from_creation_to_its_end(engine: KubernetesEngine) -> None:
    asked = submission(engine, "whole", ENDS_WELL)
    uid = await engine.create(asked)
    seen = await engine.observe(asked.name)
    assert (seen.standing, seen.uid, seen.digest, seen.attempts) == (Standing.SUSPENDED, uid, asked.digest, ())
    assert await engine.create(asked) == uid, "created again is the same"
    await engine.release(asked.name, uid)
    await engine.release(asked.name, uid)
    seen = await until(engine, asked, stepped)
    assert len(seen.attempts) == 1 and seen.attempts[0].ended_at is None
    assert engine.reflector.fresh, "that was told by the streams"
    seen = await until(engine, asked, ended)
    assert (seen.exit_code, seen.stopped, seen.progress.step, len(seen.attempts)) == (0, None, 1, 1)
    held = seen.attempts[0]
    assert held.ended_at is not None and held.ended_at > held.started_at and not held.estimated
    assert list(await engine.logs(asked.name, 10)) == ["done"]


async def test_nothing_starts_unreleased_or_under_another_uid(engine: KubernetesEngine) -> None:
    asked = submission(engine, "guard", ENDS_WELL)
    uid = await engine.create(asked)
    with pytest.raises(EngineRefused):
        await engine.release(asked.name, "00000000-0000-0000-0000-000000000000")
    await asyncio.sleep(3)
    seen = await until(engine, asked, lambda seen: seen.standing is Standing.SUSPENDED)
    assert seen.uid == uid and not seen.attempts
    with pytest.raises(NameTaken):
        await engine.create(submission(engine, "guard", "echo another"))


async def test_a_failure_is_told_with_its_exit_status(engine: KubernetesEngine) -> None:
    asked = submission(engine, "fails", "echo sorry; exit 7", backoffLimit=0)
    await started(engine, asked)
    seen = await until(engine, asked, ended)
    assert (seen.exit_code, seen.stopped, len(seen.attempts)) == (7, None, 1)
    assert list(await engine.logs(asked.name, 10)) == ["sorry"]


async def test_what_can_never_work_is_not_tried_again(engine: KubernetesEngine) -> None:
    asked = submission(engine, "never", f"exit {ExitCode.BAD_INPUT:d}")
    await started(engine, asked)
    seen = await until(engine, asked, ended)
    assert (seen.exit_code, len(seen.attempts)) == (ExitCode.BAD_INPUT, 1)


async def test_every_try_is_an_attempt(engine: KubernetesEngine) -> None:
    asked = submission(engine, "tries", "exit 9", backoffLimit=1)
    await started(engine, asked)
    seen = await until(engine, asked, ended)
    assert seen.exit_code == 9
    assert len(seen.attempts) == 2 and all(attempt.ended_at for attempt in seen.attempts)


async def test_cancelled_it_gets_sigterm_and_its_grace(engine: KubernetesEngine) -> None:
    """INT and QUIT too: an image may have named another signal to be stopped by."""
    script = f"trap 'echo saving; sleep 1; exit 4' TERM INT QUIT; {STEP}; while true; do sleep 1; done"
    asked = submission(engine, "cancel", script)
    uid = await started(engine, asked)
    await until(engine, asked, stepped)
    await engine.cancel(asked.name, uid)
    seen = await until(engine, asked, ended)
    assert (seen.stopped, seen.exit_code) == (StopReason.CANCELLED, ExitCode.INTERRUPTED)
    assert seen.attempts[0].ended_at is not None
    await engine.cancel(asked.name, uid)


async def test_cancelled_before_its_release_it_never_starts(engine: KubernetesEngine) -> None:
    asked = submission(engine, "early", ENDS_WELL)
    uid = await engine.create(asked)
    await engine.cancel(asked.name, uid)
    await engine.release(asked.name, uid)
    await asyncio.sleep(3)
    seen = await until(engine, asked, ended)
    assert seen.stopped is StopReason.CANCELLED and not seen.attempts


async def test_an_image_that_is_not_there_is_told(engine: KubernetesEngine, place: Place) -> None:
    asked = submission(engine, "image", ENDS_WELL, image="localhost/signalbox/no-such-image:0")
    try:
        uid = await started(engine, asked)
    except EngineRefused as refused:
        if place.admin is not None:
            raise
        pytest.skip(f"the namespace that was given takes no other image: {refused}")
    seen = await until(engine, asked, lambda seen: "cannot be pulled" in seen.waiting)
    assert "no-such-image" in seen.waiting and "Check the image" in seen.waiting
    await engine.cancel(asked.name, uid)
    seen = await until(engine, asked, ended)
    assert seen.stopped is StopReason.CANCELLED


async def test_a_quota_that_is_used_up_is_told(engine: KubernetesEngine, place: Place) -> None:
    if place.admin is None:
        pytest.skip("the namespace was given: its quota is not the tests' to change")
    await no_pods(client.CoreV1Api(place.admin), place.namespace)
    asked = submission(engine, "quota", ENDS_WELL)
    uid = await started(engine, asked)
    seen = await until(engine, asked, lambda seen: "quota is used up" in seen.waiting)
    assert seen.standing is Standing.PENDING and not seen.attempts
    await engine.cancel(asked.name, uid)
    seen = await until(engine, asked, ended)
    assert seen.stopped is StopReason.CANCELLED and not seen.attempts


async def no_pods(core: client.CoreV1Api, namespace: str) -> None:
    """A quota counts once its controller has written its status, and the API server has heard of that."""
    body: Any = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await core.create_namespaced_resource_quota(namespace, body)
    async with asyncio.timeout(WAIT):
        while not (await core.read_namespaced_resource_quota("none", namespace)).status.hard:
            await asyncio.sleep(0.2)
    await asyncio.sleep(2)


async def test_the_deadline_is_the_clusters_own(engine: KubernetesEngine) -> None:
    asked = submission(engine, "late", "sleep 600", activeDeadlineSeconds=5)
    await started(engine, asked)
    seen = await until(engine, asked, ended)
    assert seen.stopped is StopReason.DEADLINE


async def test_a_job_that_its_time_to_live_removed_is_absent(engine: KubernetesEngine) -> None:
    asked = submission(engine, "ttl", "exit 0", ttlSecondsAfterFinished=3)
    await started(engine, asked)
    await until(engine, asked, lambda seen: seen.standing is Standing.ABSENT)


async def test_another_bot_finds_the_training_in_mid_run(place: Place) -> None:
    async with engine_of(place) as before:
        asked = submission(before, "restart", f"{STEP}; sleep 15; echo woke")
        uid = await started(before, asked)
        seen = await until(before, asked, stepped)
    began = seen.attempts[0].started_at
    async with engine_of(place) as after:
        seen = await until(after, asked, ended)
        assert (seen.uid, seen.exit_code, seen.progress.step) == (uid, 0, 1)
        assert [attempt.started_at for attempt in seen.attempts] == [began]
        assert list(await after.logs(asked.name, 5)) == ["woke"]


async def test_the_account_may_do_nothing_else(engine: KubernetesEngine, place: Place) -> None:
    """What the Role leaves out is left out: no Secret, no deletion, no pod of one's own."""
    if place.admin is None:
        pytest.skip("the account was given")
    pod: Any = {"metadata": {"name": "x"}, "spec": {"containers": []}}
    async with await config.new_client_from_config(place.kubeconfig) as own:
        core, batch = client.CoreV1Api(own), client.BatchV1Api(own)
        for act in (
            lambda: core.list_namespaced_secret(place.namespace),
            lambda: core.create_namespaced_pod(place.namespace, pod),
            lambda: batch.delete_namespaced_job("x", place.namespace),
            lambda: core.list_namespaced_pod("kube-system"),
        ):
            with pytest.raises(client.ApiException) as refused:
                await act()
            assert refused.value.status == 403
    await engine.preflight(parse_spec("digits", {}))
