"""From a spec to the exact batch/v1 Job, and from an approved manifest to the object that is created. Pure.

`render` takes everything from the spec and the settings of its day and knows no identity: what people approve is
digested. `complete` adds name, labels, annotations and the MLflow run to that, and nothing else. The namespace's Pod
Security ("restricted") and the admission policies of infra/k8s/base/training judge the result once more.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tools.engines.base import Submission
from tools.progress import ExitCode
from tools.spec import TrainingSpec

MANAGED_BY = "app.kubernetes.io/managed-by"
OURS = "signalbox"
SELECTOR = f"{MANAGED_BY}={OURS}"
PROPOSAL = "signalbox.dev/proposal"
DIGEST = "signalbox.dev/spec-digest"
APPROVERS = "signalbox.dev/approvers"
RECIPE = "signalbox.dev/recipe"
WANTED_QUEUE = "signalbox.dev/queue"  # approved with the rest; the release turns it into Kueue's own label
RELEASED = "signalbox.dev/released"
CANCELLED = "signalbox.dev/cancelled"
TIME_LIMIT = "signalbox.dev/time-limit-seconds"  # of a TrainJob where the API has no deadline; then Signalbox keeps it
RUNTIME = "signalbox.dev/runtime-digest"  # of what a TrainJob was approved to run in
OUTPUT = "signalbox.dev/output"  # the claim that a TrainJob's checkpoints are kept on
QUEUE = "kueue.x-k8s.io/queue-name"
MAX_EXEC = "kueue.x-k8s.io/max-exec-time-seconds"  # activeDeadlineSeconds starts anew whenever Kueue resumes a Job

CONTAINER = "trainer"
OWN_NAME = "SIGNALBOX_JOB"
USER = 10001
GRACE_SHARE = 10  # a tenth of the runtime, at most, is kept for the checkpoint of a training that is stopped
NEVER_WORK = (ExitCode.BAD_INPUT, ExitCode.OUT_OF_MEMORY)  # another try would end the same way
RETRIES = 2


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """What a cluster's owner decides. Memory and storage are quantities as Kubernetes writes them."""

    namespace: str = "ml-training"
    image_cpu: str = "signalbox-trainer:cpu"
    image_gpu: str = "signalbox-trainer:cuda"
    image_pull_policy: str = "IfNotPresent"
    cpu_cores: Decimal = Decimal(4)
    memory_gib: Decimal = Decimal(8)
    ephemeral_storage: str = "10Gi"
    shared_memory: str = "2Gi"  # /dev/shm; counts as memory
    gpu_product: str | None = None  # as the node label nvidia.com/gpu.product has it
    gpu_resource: str = "nvidia.com/gpu"
    data_claim: str | None = None  # the PersistentVolumeClaim at /data; without it an empty folder
    output_claim: str | None = None  # of checkpoints, a folder a training; without it they are lost with their pod
    ttl_seconds: int = 86400  # that an ended Job stays to be read
    grace_seconds: int = 120  # from SIGTERM to SIGKILL
    queue: str | None = None  # Kueue's LocalQueue
    runtime: str | None = None  # Kubeflow Trainer's ClusterTrainingRuntime for trainings of several nodes
    auto: bool = False  # what is named here and is not in the cluster is done without
    service_account: str = "signalbox-trainer"
    tracking_uri: str = ""  # where trainings log; it must be reached from the pods

    @property
    def product_label(self) -> str:
        """The label by which a node tells what GPUs it has."""
        return f"{self.gpu_resource}.product"

    @property
    def cpu(self) -> str:
        return f"{int(self.cpu_cores * 1000)}m"


def render(spec: TrainingSpec, settings: ClusterSettings) -> dict[str, Any]:
    """The Job of this spec, suspended and without identity.

    The approved runtime is the last moment of all: the time for a checkpoint is taken from its end, not put on top.
    """
    runtime = spec.max_runtime_minutes * 60
    grace = min(settings.grace_seconds, runtime // GRACE_SHARE)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "namespace": settings.namespace,
            "annotations": {WANTED_QUEUE: settings.queue} if settings.queue else {},
        },
        "spec": {
            "suspend": True,
            "completionMode": "Indexed",
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": RETRIES,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules()},
            "activeDeadlineSeconds": runtime - grace,
            "ttlSecondsAfterFinished": settings.ttl_seconds,
            "template": {
                "metadata": {"labels": {MANAGED_BY: OURS, RECIPE: spec.recipe}},
                "spec": _pod(spec, settings, grace),
            },
        },
    }


def memory_gib(spec: TrainingSpec, settings: ClusterSettings) -> Decimal:
    """What the pod gets: as asked for, else the cluster's usual."""
    return settings.memory_gib if spec.memory_gib is None else Decimal(spec.memory_gib)


def document(spec: TrainingSpec, settings: ClusterSettings) -> dict[str, Any]:
    """What is approved and digested: the Job, and beside it what a card shows of it."""
    job = render(spec, settings)
    container = job["spec"]["template"]["spec"]["containers"][0]
    return {
        "engine": "kubernetes",
        "version": 1,
        "namespace": settings.namespace,
        **({"queue": settings.queue} if settings.queue else {}),
        "image": container["image"],
        "command": [*container["command"], *container["args"]],
        "job": job,
    }


def complete(submission: Submission) -> dict[str, Any]:
    """What is created: the approved Job with its identity, and nothing else."""
    job: dict[str, Any] = copy.deepcopy(dict(submission.manifest.get("job", submission.manifest)))
    identity(job.setdefault("metadata", {}), submission, job["spec"]["template"]["metadata"]["labels"][RECIPE])
    for container in job["spec"]["template"]["spec"]["containers"]:
        container["env"] = [*container.get("env", []), *run_variables(submission)]
    return job


def identity(meta: dict[str, Any], submission: Submission, recipe: str) -> None:
    """Name, labels and annotations, by which people and the bot know whose it is and what was approved."""
    meta["name"] = submission.name
    meta["labels"] = {**meta.get("labels", {}), MANAGED_BY: OURS, RECIPE: recipe}
    ours = {PROPOSAL: submission.proposal_id, DIGEST: submission.digest, APPROVERS: ",".join(submission.approvers)}
    meta["annotations"] = {**meta.get("annotations", {}), **ours}


def run_variables(submission: Submission) -> list[dict[str, str]]:
    """The MLflow run that waits for it."""
    return variables({"MLFLOW_RUN_ID": submission.run_id, "MLFLOW_TRACKING_URI": submission.tracking_uri})


def _failure_rules() -> list[dict[str, Any]]:
    """A drained or preempted node is nobody's fault and costs no try; what can never work is not tried again."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": CONTAINER,
                "operator": "In",
                "values": sorted(int(code) for code in NEVER_WORK),
            },
        },
    ]


def _pod(spec: TrainingSpec, settings: ClusterSettings, grace: int) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec, settings, grace)],
        "volumes": _volumes(settings),
    }
    if spec.gpus:
        pod["tolerations"] = [{"key": settings.gpu_resource, "operator": "Exists", "effect": "NoSchedule"}]
        if settings.gpu_product:
            pod["nodeSelector"] = {settings.product_label: settings.gpu_product}
    return pod


def _container(spec: TrainingSpec, settings: ClusterSettings, grace: int) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": image(spec, settings),
        "imagePullPolicy": settings.image_pull_policy,
        "command": program(spec),
        "args": [*spec.argv(), *_resume(spec, settings), "--data-dir", "/data", "--output-dir", "/output"],
        "env": [*variables(environment(spec, settings, grace)), *_own_name(settings)],
        "resources": resources(spec, settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "output", "mountPath": "/output", **_own_folder(spec, settings)},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
    }


def image(spec: TrainingSpec, settings: ClusterSettings) -> str:
    return settings.image_gpu if spec.gpus else settings.image_cpu


def program(spec: TrainingSpec) -> list[str]:
    """The trainer, or what starts several processes of it."""
    return ["python", "-m", *(["trainers.launch"] if spec.processes > 1 else []), spec.module]


def _resume(spec: TrainingSpec, settings: ClusterSettings) -> list[str]:
    """Where checkpoints outlive a pod, the next pod of a lost node's training goes on from the last."""
    return ["--resume"] if settings.output_claim and not spec.resume_from else []


def _own_name(settings: ClusterSettings) -> list[dict[str, Any]]:
    """What is approved knows no name; the pod learns it from the label that its Job's controller gives it."""
    label = {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}
    return [{"name": OWN_NAME, "valueFrom": {"fieldRef": label}}] if settings.output_claim else []


def _own_folder(spec: TrainingSpec, settings: ClusterSettings) -> dict[str, str]:
    if not settings.output_claim:
        return {}
    return {"subPath": spec.resume_from} if spec.resume_from else {"subPathExpr": f"$({OWN_NAME})"}


def environment(spec: TrainingSpec, settings: ClusterSettings, grace: int) -> dict[str, str]:
    """What a container is told; `grace` is its pod's, in seconds."""
    threads = str(max(1, int(settings.cpu_cores) // max(1, spec.gpus)))
    environment = {
        "HOME": "/tmp",  # noqa: S108
        "HF_HOME": "/tmp/huggingface",  # noqa: S108
        "MPLCONFIGDIR": "/tmp/matplotlib",  # noqa: S108
        "XDG_CACHE_HOME": "/tmp/cache",  # noqa: S108
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor",  # noqa: S108
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if not spec.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    if spec.processes > 1:  # torchrun itself would kill its processes after 30 s
        environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(grace)
    if spec.gpus > 1 and spec.machines == 1:
        environment |= {"PET_STANDALONE": "1", "PET_NPROC_PER_NODE": str(spec.gpus)}  # torchrun reads them
    return environment


def variables(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def resources(spec: TrainingSpec, settings: ClusterSettings) -> dict[str, dict[str, str]]:
    """Requests are limits: what is charged is what there is, and nobody is evicted for a neighbour's appetite."""
    memory = f"{int(memory_gib(spec, settings) * 1024)}Mi"
    held = {"cpu": settings.cpu, "memory": memory, "ephemeral-storage": settings.ephemeral_storage}
    if spec.gpus:
        held[settings.gpu_resource] = str(spec.gpus)
    return {"requests": dict(held), "limits": dict(held)}


def _volumes(settings: ClusterSettings) -> list[dict[str, Any]]:
    """The default /dev/shm of 64 MB breaks data loaders of several processes; the root is read-only."""
    empty = {"emptyDir": {"sizeLimit": settings.ephemeral_storage}}

    def claimed(claim: str | None) -> dict[str, Any]:
        return {"persistentVolumeClaim": {"claimName": claim}} if claim else empty

    return [
        {"name": "data", **claimed(settings.data_claim)},
        {"name": "output", **claimed(settings.output_claim)},
        {"name": "tmp", **empty},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
    ]
