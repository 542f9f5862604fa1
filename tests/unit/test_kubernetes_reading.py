"""Raw Jobs, pods and warnings, as a cluster shows them, and what is told of each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tools.engines.base import Observation, Standing, StopReason
from tools.engines.kubernetes.manifest import CANCELLED, DIGEST, OUTPUT, QUEUE, RELEASED
from tools.engines.kubernetes.reading import newest, observation
from tools.engines.kubernetes.slim import slim
from tools.engines.kubernetes.waiting import GONE_AT
from tools.progress import ExitCode, Progress

Raw = dict[str, Any]


def at(minute: int) -> str:
    return f"2026-11-24T12:{minute:02}:00Z"


def when(minute: int) -> datetime:
    return datetime(2026, 11, 24, 12, minute, tzinfo=UTC)


def job(
    *, suspend: bool = False, conditions: tuple[Raw, ...] = (), notes: Raw | None = None, labels: Raw | None = None
) -> Raw:
    limits = {"limits": {"memory": "8192Mi"}}
    template = {"spec": {"containers": [{"name": "trainer", "image": "trainer:1", "resources": limits}]}}
    return {
        "metadata": {"name": "a", "uid": "u", "annotations": {DIGEST: "d"} | (notes or {}), "labels": labels or {}},
        "spec": {"suspend": suspend, "template": template},
        "status": {"conditions": list(conditions)},
    }


def condition(kind: str, status: str = "True", **more: Any) -> Raw:
    return {"type": kind, "status": status, **more}


def pod(name: str = "a-0-x", *, scheduled: int | None = 1, phase: str = "Running", **status: Any) -> Raw:
    found = [] if scheduled is None else [condition("PodScheduled", lastTransitionTime=at(scheduled))]
    conditions = [*found, *status.pop("conditions", [])]
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": at(scheduled or 0),
            "ownerReferences": [{"kind": "Job", "name": "a", "uid": "u"}],
            "labels": {"batch.kubernetes.io/job-name": "a"},
        },
        "spec": {"containers": [{"name": "trainer", "image": "trainer:1"}]},
        "status": {"phase": phase, "conditions": conditions, **status},
    }


def ended(code: int, minute: int = 5, *, name: str = "a-0-x", scheduled: int = 1, **state: Any) -> Raw:
    told = {"exitCode": code, "finishedAt": at(minute), **state}
    phase = "Failed" if code else "Succeeded"
    return pod(
        name, scheduled=scheduled, phase=phase, containerStatuses=[{"name": "trainer", "state": {"terminated": told}}]
    )


def waits(reason: str, message: str = "") -> Raw:
    state = {"waiting": {"reason": reason, "message": message}}
    return pod(phase="Pending", containerStatuses=[{"name": "trainer", "image": "trainer:1", "state": state}])


def warning(kind: str, name: str, message: str, reason: str = "Failed", minute: int = 2) -> Raw:
    return {
        "metadata": {"name": f"{name}.{minute}", "creationTimestamp": at(0)},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": at(minute),
        "involvedObject": {"kind": kind, "name": name},
    }


def seen(of: Raw | None, *pods: Raw, events: tuple[Raw, ...] = (), progress: Progress | None = None) -> Observation:
    return observation(of, pods, events, progress or Progress())


DONE = condition("Complete")
FAILED = condition("Failed", reason="BackoffLimitExceeded", message="Job has reached the specified backoff limit")
LATE = condition("Failed", reason="DeadlineExceeded", message="Job was active longer than specified deadline")
UNSCHEDULABLE = condition("PodScheduled", "False", reason="Unschedulable", message="0/3 nodes: 3 Insufficient gpu.")
STOPPED = {RELEASED: at(0), CANCELLED: at(3)}


@pytest.mark.parametrize(
    ("of", "pods", "standing"),
    [
        (None, [], Standing.ABSENT),
        (job(suspend=True), [], Standing.SUSPENDED),
        (job(suspend=True, conditions=(condition("Suspended"),)), [], Standing.SUSPENDED),
        (job(conditions=(condition("Suspended", "False"),)), [], Standing.PENDING),
        (job(), [], Standing.PENDING),
        (job(), [pod(scheduled=None, phase="Pending", conditions=[UNSCHEDULABLE])], Standing.PENDING),
        (job(), [waits("ContainerCreating")], Standing.RUNNING),
        (job(), [pod()], Standing.RUNNING),
        (job(), [ended(1)], Standing.PENDING),
        (job(), [ended(1), pod("a-0-y", scheduled=6)], Standing.RUNNING),
        (job(conditions=(condition("SuccessCriteriaMet"),)), [pod()], Standing.RUNNING),
        (job(conditions=(condition("FailureTarget"),)), [pod()], Standing.RUNNING),
        (job(conditions=(condition("Complete", "False"),)), [pod()], Standing.RUNNING),
        (job(conditions=(DONE,)), [ended(0)], Standing.ENDED),
        (job(conditions=(FAILED,)), [ended(1)], Standing.ENDED),
        (job(suspend=True, notes={CANCELLED: at(0)}), [], Standing.ENDED),
        (job(suspend=True, notes=STOPPED), [pod()], Standing.RUNNING),
        (job(suspend=True, notes=STOPPED), [ended(4)], Standing.ENDED),
        (job(suspend=True, notes=STOPPED), [pod() | {GONE_AT: at(4)}], Standing.ENDED),
        (job(suspend=True, notes={RELEASED: at(0)}, labels={QUEUE: "q"}), [], Standing.PENDING),
    ],
)
def test_where_it_stands(of: Raw | None, pods: list[Raw], standing: Standing) -> None:
    assert seen(of, *pods).standing is standing


def test_who_it_is() -> None:
    told = seen(job(), pod())
    assert (told.uid, told.digest) == ("u", "d")


def test_pods_of_another_job_by_the_same_name_are_not_its_own() -> None:
    old = pod("a-0-old")
    old["metadata"]["ownerReferences"][0]["uid"] = "before"
    assert seen(job(), old).attempts == ()
    bare = pod("a-0-bare")
    del bare["metadata"]["ownerReferences"]
    assert len(seen(job(), bare).attempts) == 1


def test_attempts_are_numbered_by_their_start() -> None:
    first, second = ended(1, 5, name="a-0-z", scheduled=1), pod("a-0-b", scheduled=6)
    for pods in ([first, second], [second, first]):
        told = seen(job(), *pods).attempts
        assert [(one.number, one.started_at, one.ended_at) for one in told] == [
            (1, when(1), when(5)),
            (2, when(6), None),
        ]
        assert newest(job(), pods) is second


def test_an_end_that_nobody_saw_is_estimated() -> None:
    (lost,) = seen(job(), pod() | {GONE_AT: at(9)}).attempts
    assert (lost.ended_at, lost.estimated) == (when(9), True)
    evicted = pod(
        phase="Failed", reason="Evicted", conditions=[condition("DisruptionTarget", lastTransitionTime=at(7))]
    )
    (attempt,) = seen(job(), evicted).attempts
    assert (attempt.ended_at, attempt.estimated) == (when(7), True)
    (known,) = seen(job(), ended(137, 8) | {GONE_AT: at(9)}).attempts
    assert (known.ended_at, known.estimated) == (when(8), False)


def test_an_end_is_never_before_its_start() -> None:
    (attempt,) = seen(job(), ended(1, 0, scheduled=3)).attempts
    assert attempt.ended_at == attempt.started_at


@pytest.mark.parametrize(
    ("of", "pods", "code", "stopped", "words"),
    [
        (job(conditions=(DONE,)), [ended(0)], 0, None, None),
        (job(conditions=(DONE,)), [], 0, None, None),
        (job(conditions=(FAILED,)), [ended(1), ended(2, 9, name="y", scheduled=6)], 2, None, None),
        (job(conditions=(FAILED,)), [ended(137)], -9, None, None),
        (job(conditions=(FAILED,)), [ended(143)], -15, None, None),
        (job(conditions=(FAILED,)), [ended(137, reason="OOMKilled")], ExitCode.OUT_OF_MEMORY, None, "limit of 8192Mi"),
        (job(conditions=(LATE,)), [ended(4)], 4, StopReason.DEADLINE, None),
        (job(conditions=(LATE,)), [], None, StopReason.DEADLINE, None),
        (job(conditions=(LATE,), notes=STOPPED), [ended(4)], 4, StopReason.CANCELLED, None),
        (job(suspend=True, notes=STOPPED), [ended(4)], 4, StopReason.CANCELLED, None),
        (job(conditions=(DONE,), notes=STOPPED), [ended(0)], 0, None, None),
        (job(conditions=(FAILED,)), [pod() | {GONE_AT: at(4)}], None, None, "backoff limit"),
        (
            job(conditions=(FAILED,)),
            [pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")],
            None,
            None,
            "(Evicted): The node was low",
        ),
        (
            job(conditions=(FAILED,)),
            [ended(2, message='epoch 1\nSIGNALBOX {"event": "error", "message": "No data there."}\n')],
            2,
            None,
            "No data there.",
        ),
    ],
)
def test_how_it_ended(
    of: Raw, pods: list[Raw], code: int | None, stopped: StopReason | None, words: str | None
) -> None:
    told = seen(of, *pods)
    assert (told.standing, told.exit_code, told.stopped) == (Standing.ENDED, code, stopped)
    if words is None:
        assert told.progress.error is None
    else:
        assert words in str(told.progress.error)


EVICTED = {"reason": "Evicted", "message": 'Usage of EmptyDir volume "tmp" exceeds the limit "10Gi". '}
FULL = (
    'The cluster ended its pod (Evicted): Usage of EmptyDir volume "tmp" exceeds the limit "10Gi". It needs more disk:'
)
NO_NODE = condition("DisruptionTarget", reason="DeletionByPodGC", message="PodGC: node no longer exists")
NO_PYTHON = 'runc create failed: exec: "python": executable file not found in $PATH: unknown'
UNKNOWN = {"reason": "ContainerStatusUnknown", "startedAt": None, "finishedAt": None, "message": "could not be located"}


def with_status(of: Raw, *conditions: Raw, **status: Any) -> Raw:
    listed = [*of["status"]["conditions"], *conditions]
    return of | {"status": of["status"] | status | {"conditions": listed}}


@pytest.mark.parametrize(
    ("left", "code", "words"),
    [
        (with_status(ended(137), **EVICTED), -9, f"{FULL} raise SIGNALBOX_CLUSTER_STORAGE_GIB."),
        (with_status(ended(4), **EVICTED), 4, f"{FULL} raise SIGNALBOX_CLUSTER_STORAGE_GIB."),
        (
            with_status(ended(137), **EVICTED | {"message": "The node was low on resource: memory."}),
            -9,
            "The cluster ended its pod (Evicted): The node was low on resource: memory.",
        ),
        (
            with_status(ended(137), **EVICTED | {"message": 'Usage of EmptyDir volume "shm" exceeds the limit "2Gi".'}),
            -9,
            'The cluster ended its pod (Evicted): Usage of EmptyDir volume "shm" exceeds the limit "2Gi".',
        ),
        (
            ended(128, reason="StartError", message=NO_PYTHON),
            128,
            f"Its container could not be started (StartError): {NO_PYTHON}. Check that its image is a trainer's.",
        ),
        (
            ended(128, reason="ContainerCannotRun", message="no GPU"),
            128,
            "Its container could not be started (ContainerCannotRun): no GPU.",
        ),
        (
            with_status(ended(137, **UNKNOWN), NO_NODE),
            None,
            "Its node is gone (DeletionByPodGC): PodGC: node no longer exists.",
        ),
        (ended(137, **UNKNOWN), None, "Nobody saw how its container ended: could not be located."),
        (
            with_status(pod(phase="Failed"), NO_NODE),
            None,
            "Its node is gone (DeletionByPodGC): PodGC: node no longer exists.",
        ),
    ],
)
def test_what_the_cluster_did_is_not_told_as_the_trainer_s_own_end(left: Raw, code: int | None, words: str) -> None:
    told = seen(job(conditions=(FAILED,)), slim(left))
    assert (told.exit_code, told.progress.error) == (code, words)


def test_an_evicted_training_says_that_its_checkpoint_is_kept_and_what_its_trainer_knew_stays() -> None:
    kept = job(conditions=(FAILED,), notes={OUTPUT: "claim"})
    assert str(seen(kept, with_status(ended(4), **EVICTED)).progress.error).endswith("Its checkpoint is kept.")
    assert "checkpoint" not in str(seen(kept, with_status(ended(137), **EVICTED)).progress.error)
    assert seen(kept, with_status(ended(2), **EVICTED)).progress.error is None


def test_what_could_not_be_started_did_not_begin_in_1970() -> None:
    (never,) = seen(job(), ended(128, reason="StartError", startedAt="1970-01-01T00:00:00Z")).attempts
    (once,) = seen(job(), ended(1, startedAt=at(3))).attempts
    (behind,) = seen(job(), ended(1, startedAt=at(0))).attempts  # its node's clock
    assert (never.began_at, once.began_at, behind.began_at) == (None, when(3), behind.started_at)


def test_while_it_runs_no_exit_is_told() -> None:
    assert seen(job(), ended(1), pod("y", scheduled=6)).exit_code is None


def test_the_trainers_own_sentence_stays() -> None:
    mine = Progress(error="The loss is NaN.", step=3)
    told = seen(job(conditions=(FAILED,)), ended(137, reason="OOMKilled"), progress=mine)
    assert (told.progress.error, told.progress.step) == ("The loss is NaN.", 3)


QUOTA = 'pods "a-0" is forbidden: exceeded quota: training, requested: requests.cpu=4, used: …=16, limited: …=16'


@pytest.mark.parametrize(
    ("of", "pods", "events", "words"),
    [
        (job(), [], [], ""),
        (job(), [pod()], [], ""),
        (job(), [waits("ContainerCreating")], [], ""),
        (job(), [waits("ImagePullBackOff")], [], "image trainer:1 cannot be pulled (ImagePullBackOff)"),
        (job(), [waits("ErrImageNeverPull")], [], "image trainer:1 cannot be pulled"),
        (
            job(),
            [waits("CreateContainerConfigError", "run as\nroot")],
            [],
            "(CreateContainerConfigError): run as root.",
        ),
        (job(), [pod(scheduled=None, conditions=[UNSCHEDULABLE])], [], "No node can take it now: 0/3 nodes"),
        (job(), [], [warning("Job", "a", QUOTA, "FailedCreate")], "quota is used up (exceeded quota: training"),
        (job(), [], [warning("Job", "a", "maximum cpu is 16", "FailedCreate")], "refuses its pod: maximum cpu is 16."),
        (job(), [], [warning("Job", "b", QUOTA, "FailedCreate")], ""),
        (
            job(),
            [waits("ContainerCreating")],
            [warning("Pod", "a-0-x", "no such claim", "FailedMount")],
            "no such claim",
        ),
        (job(), [pod()], [warning("Pod", "a-0-x", "Readiness probe failed")], ""),
        (job(), [ended(1)], [warning("Job", "a", "old")], ""),
        (
            job(suspend=True, notes={RELEASED: "x"}, labels={QUEUE: "q"}),
            [],
            [warning("Workload", "job-a-1f", "insufficient unused quota", "Pending")],
            "in the queue q: insufficient unused quota.",
        ),
        (job(suspend=True, notes={RELEASED: "x"}, labels={QUEUE: "q"}), [], [], "It waits in the queue q."),
        (job(suspend=True, notes={RELEASED: "x"}), [], [], "Somebody suspended"),
    ],
)
def test_why_it_waits(of: Raw, pods: list[Raw], events: list[Raw], words: str) -> None:
    told = seen(of, *pods, events=tuple(events)).waiting
    assert words in told
    assert bool(words) == bool(told)
    assert "\n" not in told and len(told) < 500


@pytest.mark.parametrize(
    "gone", [ended(1), ended(137) | {GONE_AT: at(6)}, pod() | {GONE_AT: "2026-11-24T12:05:00.123456+00:00"}]
)
def test_another_try_that_the_cluster_refuses_is_told_as_the_first_would_be(gone: Raw) -> None:
    first = seen(job(), events=(warning("Job", "a", QUOTA, "FailedCreate", minute=6),))
    again = seen(job(), gone, events=(warning("Job", "a", QUOTA, "FailedCreate", minute=6),))
    assert again.standing is Standing.PENDING and again.waiting == first.waiting != ""
    for minute in (2, 5):
        assert seen(job(), gone, events=(warning("Job", "a", QUOTA, "FailedCreate", minute=minute),)).waiting == ""


def test_the_latest_warning_wins() -> None:
    events = (warning("Pod", "a-0-x", "second", minute=9), warning("Pod", "a-0-x", "first", minute=3))
    assert "second" in seen(job(), waits("ContainerCreating"), events=events).waiting


def test_more_memory_is_what_helps_after_its_end_for_memory_and_nothing_else() -> None:
    assert seen(job(conditions=(FAILED,)), ended(137, reason="OOMKilled")).remedy == {"memory_gib": 12}
    assert seen(job(conditions=(FAILED,)), ended(137)).remedy == {}


def test_what_was_kept_in_a_claim_can_be_resumed() -> None:
    kept = job(conditions=(LATE,))
    kept["spec"]["template"]["spec"]["volumes"] = [{"name": "output", "persistentVolumeClaim": {"claimName": "kept"}}]
    assert seen(kept, ended(4)).resumable and not seen(kept).resumable
    assert not seen(job(conditions=(LATE,)), ended(4)).resumable
