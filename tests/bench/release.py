"""From an approval to the Job's release, beside the bare client's create of such a Job: `make bench-release`.

Both run in turn in one process against one fake cluster in another, whose clock says when the Job was released (or, of
the bare client's, that it was there). Between the two lie the vote's commit, the reconciler's waking, the second gate,
the MLflow run (a stand-in), three commits, and the engine's requests: create suspended, look, release by uid.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kubernetes.aio import client, config

from bot.approvals.deciding import Deciding
from bot.core.proposal import Verdict
from tests.bench.cluster import NAMESPACE, Far, far_cluster, job, world_over
from tests.world import Bot, FixedPolicy, hand

GOAL_MS = 100.0
WARM = 3
PATIENCE_SECONDS = 30.0


async def _bare(api: client.BatchV1Api, far: Far, name: str) -> float:
    """Seconds until it is there."""
    body = job(name, name)
    began = time.time()
    await api.create_namespaced_job(NAMESPACE, body)
    return await _seen(far, name, "there") - began


async def _approved(bot: Bot, deciding: Deciding, far: Far) -> tuple[float, float]:
    """Seconds until the vote is committed, and until the Job is released."""
    proposal = await bot.propose()
    began = time.time()
    decided = await deciding.decide(hand("ann"), proposal.number, Verdict.APPROVE)
    committed = time.time() - began
    return committed, await _seen(far, decided.job_name, "released") - began


async def _seen(far: Far, name: str, what: str) -> float:
    """When the cluster saw it; asked seldom, so that the asking costs nobody time."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while what not in (times := (await far("seen")).get(name, {})):
            await asyncio.sleep(0.3)
    return float(times[what])


async def _bench(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        url = os.environ.get("DATABASE_URL") or f"sqlite:///{Path(folder) / 'signalbox.db'}"
        async with far_cluster(kubeconfig) as far, world_over(url, kubeconfig) as world, world.bot() as bot:
            deciding = Deciding(bot.store, bot.pricing, FixedPolicy(world.policy), bot.reconciler.wake)
            reconciling = asyncio.create_task(bot.reconciler.run())
            await config.load_kube_config(config_file=str(kubeconfig))
            async with client.ApiClient() as bare:
                api = client.BatchV1Api(bare)
                plain, committed, whole = await _turns(
                    rounds, lambda turn: _bare(api, far, f"bare-{turn}"), lambda: _approved(bot, deciding, far)
                )
            reconciling.cancel()
            _told(bot.store.database.url.get_backend_name(), plain, committed, whole)


async def _turns(
    rounds: int, bare: Callable[[int], Awaitable[float]], approved: Callable[[], Awaitable[tuple[float, float]]]
) -> tuple[list[float], list[float], list[float]]:
    """In turn, milliseconds each; the first few are for warming."""
    plain, committed, whole = list[float](), list[float](), list[float]()
    for turn in range(rounds + WARM):
        plain.append(1000 * await bare(turn))
        vote, release = await approved()
        committed.append(1000 * vote)
        whole.append(1000 * release)
    return plain[WARM:], committed[WARM:], whole[WARM:]


def _told(backend: str, plain: list[float], committed: list[float], whole: list[float]) -> None:
    print(f"{len(whole)} of each in turn, over {backend}; milliseconds")
    print(f"{'':40}{'median':>9}{'worst':>9}")
    for name, times in (
        ("bare client: create → there", plain),
        ("approve → vote committed", committed),
        ("approve → Job released", whole),
    ):
        print(f"{name:40}{statistics.median(times):9.1f}{max(times):9.1f}")
    over: Any = statistics.median(whole) - statistics.median(plain)
    print(f"beyond bare {over:.0f} ms, goal ≤ {GOAL_MS:.0f} ms {'met' if over <= GOAL_MS else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    asyncio.run(_bench(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
