"""What pods run on: a node's GPU product and whether it is a spot machine, by its labels.

A node is asked for once in a while, however many trainings run on it, and only a price depends on the answer: where
there is none, whatever the reason, the look at a training goes on without.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.engines.base import EngineUnavailable, Machine
from tools.engines.kubernetes.connection import Connection, Problem, Unreachable
from tools.engines.kubernetes.waiting import clean

log = logging.getLogger(__name__)

KEPT_SECONDS = 3600.0  # that an answer holds: a node does not become another
AGAIN_SECONDS = 300.0  # after nodes may not be read
FAILED_SECONDS = 30.0  # after there was no answer
LONGEST_SECONDS = 3.0  # that a look at a training waits for one
MOST = 2048  # nodes that are remembered
SPOT = frozenset(
    {
        ("cloud.google.com/gke-spot", "true"),
        ("cloud.google.com/gke-preemptible", "true"),
        ("eks.amazonaws.com/capacityType", "SPOT"),
        ("karpenter.sh/capacity-type", "spot"),
        ("kubernetes.azure.com/scalesetpriority", "spot"),
    }
)

Raw = Mapping[str, Any]


@dataclass
class _Node:
    """What was answered, and when to ask anew."""

    machine: Machine = field(default_factory=Machine)
    look_at: float = float("-inf")
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Machines:
    """`product`: the label that names a node's GPUs."""

    def __init__(self, connection: Connection, product: str) -> None:
        self._connection = connection
        self._product = product
        self._nodes: dict[str, _Node] = {}
        self._closed_until = float("-inf")
        self._told = False

    async def of(self, pods: Iterable[Raw]) -> dict[str, Machine]:
        """The machines of those pods that have one, by the node's name."""
        names = {str(name) for pod in pods if (name := (pod.get("spec") or {}).get("nodeName"))}
        return {name: await self._machine(name) for name in names}

    async def _machine(self, name: str) -> Machine:
        node = self._nodes.setdefault(name, _Node())
        async with node.asking:
            if time.monotonic() >= max(node.look_at, self._closed_until):
                await self._look(name, node)
        if len(self._nodes) > MOST:
            del self._nodes[next(iter(self._nodes))]
        return node.machine

    async def _look(self, name: str, node: _Node) -> None:
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                labels = (await self._connection.get(f"/api/v1/nodes/{name}"))["metadata"].get("labels") or {}
        except (Problem, Unreachable, EngineUnavailable, TimeoutError) as error:
            code = error.code if isinstance(error, Problem) else 0
            if code == 403:
                self._closed_until = time.monotonic() + AGAIN_SECONDS
            else:
                node.look_at = time.monotonic() + (KEPT_SECONDS if code == 404 else FAILED_SECONDS)
            self._tell(name, error)
            return
        self._told, node.look_at = False, time.monotonic() + KEPT_SECONDS
        node.machine = Machine(gpu_product=labels.get(self._product), spot=not SPOT.isdisjoint(labels.items()))

    def _tell(self, name: str, error: Exception) -> None:
        """Once until a node was read again."""
        if not self._told:
            why = clean(error) or type(error).__name__
            log.warning("node %s is charged as approved, for its labels cannot be read: %s", name, why)
        self._told = True
