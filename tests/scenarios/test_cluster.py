"""The whole loop with a cluster as the engine: Slack's card, a Job on the fake cluster, a training, the last card.

What the pod runs is a real training where the trainers' environment is there: its very command, as the manifest says,
with the pod's folders replaced by ones of this machine.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bot.settings import SOURCE, TRAINERS_PYTHON
from tests.fakes.kubernetes import Cluster
from tests.fakes.kubernetes.kinds import JOBS, PODS
from tests.fakes.mlflow_server import MlflowServer
from tests.fakes.slack import SlackServer
from tests.scenarios.test_slack import bot, card, whole_loop

Ran = Callable[[dict[str, Any]], Awaitable[int]]


def running(cluster: Cluster, folder: Path) -> Ran:
    """The container's command as a process; its lines are the pod's log, its exit status the container's."""

    async def run(pod: dict[str, Any]) -> int:
        container = pod["spec"]["containers"][0]
        places = {"/data": str(folder / "data"), "/output": str(folder / "output")}
        _, *arguments = [places.get(word, word) for word in (*container["command"], *container["args"])]
        variables = {one["name"]: one.get("value", "") for one in container["env"] if one["name"] != "HOME"}
        process = await asyncio.create_subprocess_exec(
            str(TRAINERS_PYTHON),
            *arguments,
            cwd=SOURCE,
            env=os.environ | variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                cluster.log(pod["metadata"]["name"], line.decode("utf-8", "replace").rstrip("\n"))
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()

    return run


def settings(cluster: Cluster, mlflow: MlflowServer, folder: Path) -> dict[str, str]:
    return {
        "SIGNALBOX_ENGINE": "kubernetes",
        "SIGNALBOX_NAMESPACE": "training",
        "KUBECONFIG": str(cluster.kubeconfig(folder / "kubeconfig")),
        "MLFLOW_TRACKING_URI": mlflow.url,
    }


@pytest.mark.skipif(not TRAINERS_PYTHON.exists(), reason="the trainers' environment is not made; run make setup")
async def test_the_whole_loop_over_a_cluster_with_a_real_training(tmp_path: Path) -> None:
    async with Cluster() as cluster, MlflowServer(tmp_path) as mlflow, SlackServer(rates=60) as slack:
        pods = cluster.autorun(on_start=running(cluster, tmp_path))
        async with bot(slack, tmp_path, TRAINERS_PYTHON, **settings(cluster, mlflow, tmp_path)):
            await whole_loop(slack, accuracy="9")
            jobs = [entry.obj for _, entry in cluster.store.scan(JOBS)]
            assert len(jobs) == 1 and jobs[0]["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "signalbox"
        assert not pods.errors


async def test_why_it_waits_is_told_in_the_thread(tmp_path: Path) -> None:
    async with (
        Cluster() as cluster,
        MlflowServer(tmp_path) as mlflow,
        SlackServer(rates=60) as slack,
        bot(slack, tmp_path, Path("/bin/true"), **settings(cluster, mlflow, tmp_path)),
    ):
        await slack.user("U1").mention("C1", "train digits for 2 epochs")
        pending = await card(slack, "Approvals")
        await (await slack.user("U2").click(pending, "sb_approve")).done()
        pods = cluster.store.scan
        pod = await slack.until(lambda: next((entry.obj for _, entry in pods(PODS)), None), 30, "a pod")
        cluster.unschedulable(pod, "0/3 nodes are available: 3 Insufficient cpu.")
        await slack.message("C1", containing="No node can take it now", thread_ts=pending.thread_ts, timeout=30)
        cluster.unschedulable(pod, "0/4 nodes are available: 4 Insufficient cpu.")
        await card(slack, "0/4 nodes")
        cluster.schedule(pod)
        cluster.image_pull_backoff(cluster.pod(pod["metadata"]["name"]))

        def told() -> list[str]:
            return [one.words for one in slack.messages("C1") if "has to wait" in one.words]

        await slack.until(lambda: len(told()) == 2, 30, "the other kind of trouble")
        assert "cannot be pulled" in told()[1], "each kind once, whatever its details"
