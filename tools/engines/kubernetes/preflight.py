"""Whether a cluster could ever run a training, and as what: asked before anybody is asked to approve it.

What may not be read is passed over: its absence would show as a waiting training with its reason. Where the answer
chooses what a card will show (`auto`), nothing is guessed: an API server that does not say is one that is not there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tools.engines.base import EngineRefused, EngineUnavailable
from tools.engines.kubernetes import runtimes
from tools.engines.kubernetes.connection import Connection, Problem
from tools.engines.kubernetes.manifest import ClusterSettings
from tools.engines.kubernetes.runtimes import Runtime
from tools.spec import TrainingSpec

OUTPUT_CLAIM = "SIGNALBOX_OUTPUT_CLAIM"
KUEUE = ("v1beta2", "v1beta1")  # versions of its API, the newer first


async def found(settings: ClusterSettings, connection: Connection) -> ClusterSettings:
    """The settings as they hold in this cluster. Raises `EngineRefused` for what they name in vain."""
    await _namespace(settings, connection)
    if not settings.queue:
        return settings
    queues = await queues_in(settings.namespace, connection)
    if queues is None and settings.auto:
        raise EngineUnavailable(
            f"Signalbox may not see whether there is a queue {settings.queue}. "
            "Apply infra/k8s/base/training/role.yaml, or choose with SIGNALBOX_ENGINE=kubernetes."
        )
    if queues is None or settings.queue in queues:
        return settings
    if settings.auto:
        return replace(settings, queue=None)
    known = f"; there are {', '.join(queues)}" if queues else ""
    raise EngineRefused(
        f"There is no queue {settings.queue} in the namespace {settings.namespace}{known}. "
        "Install Kueue and its LocalQueue, or set SIGNALBOX_QUEUE."
    )


async def queues_in(namespace: str, connection: Connection) -> list[str] | None:
    """Kueue's LocalQueues, none without Kueue, where its label is only a label; None if that may not be known."""
    for version in KUEUE:
        listed = await _read(connection, f"/apis/kueue.x-k8s.io/{version}/namespaces/{namespace}/localqueues")
        if listed is not False:
            return [one["metadata"]["name"] for one in listed["items"]] if isinstance(listed, dict) else None
    return []


async def checked(spec: TrainingSpec, settings: ClusterSettings, connection: Connection) -> ClusterSettings:
    """The settings as they hold in this cluster. Raises `EngineRefused` with the next step."""
    if settings.tracking_uri and not settings.tracking_uri.startswith(("http://", "https://")):
        raise EngineRefused(
            "Trainings in the cluster cannot log to a file on this machine. Set MLFLOW_TRACKING_URI to an MLflow "
            "server that the cluster reaches."
        )
    settings = await found(settings, connection)
    for claim, setting in ((settings.data_claim, "SIGNALBOX_DATA_CLAIM"), (settings.output_claim, OUTPUT_CLAIM)):
        if claim:
            await _claim(claim, setting, settings, connection)
    if spec.resume_from and not settings.output_claim:
        raise EngineRefused(
            f"No checkpoint of {spec.resume_from} was kept. Set {OUTPUT_CLAIM} to a PersistentVolumeClaim; "
            "train from the beginning instead."
        )
    if spec.gpus:
        await _gpu(spec, settings, connection)
    return settings


async def several(spec: TrainingSpec, settings: ClusterSettings, connection: Connection) -> Runtime:
    """The runtime for trainings of several nodes. Raises `EngineRefused` if there is none, or not one for this spec."""
    if not settings.runtime:
        raise EngineRefused(
            "A training of several nodes needs Kubeflow Trainer and a runtime for it, named in SIGNALBOX_RUNTIME "
            "(docs/install-kubernetes.md). Ask for one node."
        )
    found = await runtime(settings.runtime, connection)
    if found is None:
        raise EngineRefused(
            f"There is no ClusterTrainingRuntime {settings.runtime} in the cluster. Install Kubeflow Trainer and "
            "infra/k8s/components/trainer, or set SIGNALBOX_RUNTIME; or ask for one node."
        )
    if not found.torchrun:
        raise EngineRefused(
            f"The runtime {found.name} starts no torchrun: it needs mlPolicy.torch, and a container "
            f"{runtimes.CONTAINER} in its trainer's pod."
        )
    for folder, claim in (("/data", settings.data_claim), ("/output", settings.output_claim)):
        if claim and found.claims.get(folder) != claim:
            raise EngineRefused(
                f"The runtime {found.name} does not mount the PersistentVolumeClaim {claim} at {folder}. "
                "Add it to the runtime, where a TrainJob's volumes come from."
            )
    label = settings.product_label
    if spec.gpus and settings.gpu_product and found.selector.get(label) != settings.gpu_product:
        raise EngineRefused(
            f"The runtime {found.name} does not take GPUs {settings.gpu_product} alone, so what they cost is not "
            f"known. Set its nodeSelector {label}, or unset SIGNALBOX_GPU_PRODUCT."
        )
    return found


async def runtime(name: str, connection: Connection) -> Runtime | None:
    """The ClusterTrainingRuntime of that name; None without it, or without Kubeflow Trainer."""
    there = await _read(connection, f"{runtimes.API}/clustertrainingruntimes/{name}")
    if there is None:
        raise EngineRefused(
            f"Signalbox may not read the ClusterTrainingRuntime {name}. Apply infra/k8s/components/trainer."
        )
    if not isinstance(there, dict):
        return None
    schema = await _read(connection, runtimes.OPENAPI)
    return runtimes.runtime_of(there, schema if isinstance(schema, dict) else None)


async def _namespace(settings: ClusterSettings, connection: Connection) -> None:
    """By what the Role allows: a list of Jobs is empty in a namespace that is not there, so its quota is no help."""
    await connection.get(f"/apis/batch/v1/namespaces/{settings.namespace}/jobs", limit=1)
    there = await _read(connection, f"/api/v1/namespaces/{settings.namespace}")
    if there is False:
        raise EngineRefused(
            f"There is no namespace {settings.namespace} in the cluster. Apply infra/k8s, or set SIGNALBOX_NAMESPACE."
        )


async def _claim(claim: str, setting: str, settings: ClusterSettings, connection: Connection) -> None:
    path = f"/api/v1/namespaces/{settings.namespace}/persistentvolumeclaims/{claim}"
    if await _read(connection, path) is False:
        raise EngineRefused(
            f"There is no PersistentVolumeClaim {claim} in the namespace {settings.namespace}. "
            f"Make it, or set {setting}."
        )


async def _gpu(spec: TrainingSpec, settings: ClusterSettings, connection: Connection) -> None:
    """Whether any node has enough GPUs of the product. A cluster that scales up from nothing should forbid nodes."""
    listed = await _read(connection, "/api/v1/nodes")
    if not isinstance(listed, dict):
        return
    with_gpus = [node for node in listed["items"] if _count(node, settings.gpu_resource) >= spec.gpus]
    products = {
        str((node["metadata"].get("labels") or {}).get(settings.product_label) or "unnamed") for node in with_gpus
    }
    if not with_gpus:
        raise EngineRefused(f"No node of the cluster has {spec.gpus} GPU(s). Ask for it on CPU cores: no gpu.")
    if len(with_gpus) < spec.machines:
        raise EngineRefused(
            f"{len(with_gpus)} node(s) of the cluster have {spec.gpus} GPU(s), and it asks for {spec.machines}. "
            "Ask for fewer nodes, or fewer GPUs of each."
        )
    if settings.gpu_product and settings.gpu_product not in products:
        raise EngineRefused(
            f"No node of the cluster has a GPU {settings.gpu_product}; there are {', '.join(sorted(products))}. "
            "Set SIGNALBOX_GPU_PRODUCT, or ask for it on CPU cores: no gpu."
        )


def _count(node: dict[str, Any], resource: str) -> int:
    try:
        return int(((node.get("status") or {}).get("allocatable") or {}).get(resource) or 0)
    except ValueError:
        return 0


async def _read(connection: Connection, path: str) -> dict[str, Any] | bool | None:
    """The object; False if it is not there; None if that may not be known."""
    try:
        return await connection.get(path)
    except Problem as problem:
        if problem.code == 404:
            return False
        if problem.code == 403:
            return None
        raise
