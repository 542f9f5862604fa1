"""What a Job or TrainJob, its pods and warnings say, as an `Observation`. Pure, over raw dictionaries, level-triggered.

Its conditions tell the outcome, its pods tell what it held: an attempt begins when its pod is scheduled (a GPU is
held while the image is pulled) and ends with its last container. A pod that was deleted is handed in with `GONE_AT`.
"""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from tools.engines.base import Attempt, Machine, Observation, Standing, StopReason
from tools.engines.kubernetes.forms import TRAIN_JOB, belongs, form_of, leads, limits, nodes
from tools.engines.kubernetes.manifest import CANCELLED, CONTAINER, DIGEST, OUTPUT, RELEASED, TIME_LIMIT
from tools.engines.kubernetes.waiting import GONE_AT, clean, lost, waiting
from tools.progress import ExitCode, Progress, parse_lines

Raw = Mapping[str, Any]

_TOLD = (ExitCode.OK, ExitCode.INTERRUPTED, 128 + signal.SIGTERM)  # ends that say nothing against a node's own work
_KNOWN = (ExitCode.OK, ExitCode.BAD_INPUT, ExitCode.OUT_OF_MEMORY)  # ends that the trainer itself accounts for
_NOT_STARTED = frozenset({"StartError", "ContainerCannotRun"})
_DISK = re.compile(r"exceed(s|ed) (the|its)\b.* limit\b")  # what the kubelet says of a volume, a container, a pod


@dataclass(frozen=True)
class _Held:
    """A pod that was scheduled, and when."""

    pod: Raw
    started_at: datetime
    ended_at: datetime | None
    estimated: bool
    lost: bool  # with its node

    @property
    def node(self) -> str:
        return str((self.pod.get("spec") or {}).get("nodeName") or "")


def observation(
    job: Raw | None,
    pods: Iterable[Raw],
    events: Iterable[Raw],
    progress: Progress,
    place: str = "",
    machines: Mapping[str, Machine] | None = None,
    now: datetime | None = None,
) -> Observation:
    """What is there now. `progress` is what the newest pod's log told, `place` where it stands in line, `machines` what
    is known of the nodes, by name; without `now` no pod is taken for lost."""
    if job is None:
        return Observation(standing=Standing.ABSENT)
    mine = [pod for pod in pods if belongs(pod, job)]
    held = _held(mine, now)
    standing = _standing(job, held)
    seen = Observation(
        standing=standing,
        uid=job["metadata"]["uid"],
        digest=notes_on(job).get(DIGEST),
        attempts=tuple(
            Attempt(
                number=number,
                started_at=one.started_at,
                ended_at=one.ended_at,
                estimated=one.estimated,
                machine=(machines or {}).get(one.node, Machine()),
                began_at=_began(one),
                preempted=condition(one.pod, "DisruptionTarget") is not None,
            )
            for number, one in enumerate(held, 1)
        ),
        progress=progress,
        due=_due(job, held),
    )
    if standing is Standing.ENDED:
        return _ended(seen, job, held)
    if standing in (Standing.PENDING, Standing.RUNNING):
        told = waiting(job, mine, list(events), place, now=now, ended_at=_all_ended(mine))
        return replace(seen, waiting=told)
    return seen


def newest(job: Raw, pods: Iterable[Raw]) -> Raw | None:
    """The pod whose log is the training's: of those that lead, the one that was scheduled last."""
    held = _held([pod for pod in pods if belongs(pod, job) and leads(pod, job)])
    return held[-1].pod if held else None


def notes_on(obj: Raw) -> dict[str, str]:
    """Its annotations."""
    return dict(obj["metadata"].get("annotations") or {})


def over(pod: Raw) -> bool:
    """Whether it holds nothing any more."""
    status = pod.get("status") or {}
    return GONE_AT in pod or status.get("phase") in ("Succeeded", "Failed")


def ended(job: Raw) -> bool:
    """Whether its outcome is known: the cluster says so when its last pod is over."""
    return condition(job, "Complete", "Failed") is not None


def condition(obj: Raw, *types: str) -> Raw | None:
    """The first of these conditions that is true; that one is listed says nothing."""
    listed = (obj.get("status") or {}).get("conditions") or ()
    true = {one["type"]: one for one in listed if one.get("status") == "True"}
    return next((true[name] for name in types if name in true), None)


def moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except (TypeError, ValueError):
        return None


def _due(job: Raw, held: Sequence[_Held]) -> datetime | None:
    """When its approved time is over, if the API has no deadline for its kind."""
    limit = notes_on(job).get(TIME_LIMIT)
    return held[0].started_at + timedelta(seconds=int(limit)) if limit and held else None


def _held(pods: Sequence[Raw], now: datetime | None = None) -> list[_Held]:
    """The pods that were scheduled, in the order in which they were. One that is lost held until it had to end."""
    found = []
    for pod in pods:
        scheduled = condition(pod, "PodScheduled")
        start = moment(scheduled.get("lastTransitionTime")) if scheduled else None
        if start is not None:
            end, estimated = _end(pod)
            if away := end is None and lost(pod, now):
                end, estimated = moment(pod["metadata"]["deletionTimestamp"]), True
            found.append(_Held(pod, start, max(end, start) if end else None, estimated, away))
    return sorted(found, key=lambda one: (one.started_at, one.pod["metadata"]["name"]))


def _end(pod: Raw) -> tuple[datetime | None, bool]:
    """When its last container ended; else when it was last known to change, as an estimate; None while it lives."""
    if not over(pod) and not _all_terminated(pod):
        return None, False
    finished = [at for one in _terminated(pod) if (at := moment(one.get("finishedAt")))]
    if finished:
        return max(finished), False
    told = [moment(one.get("lastTransitionTime")) for one in (pod.get("status") or {}).get("conditions") or ()]
    known = [at for at in told if at]
    gone = moment(pod.get(GONE_AT))
    return gone or (max(known) if known else None), True


def _all_ended(pods: Sequence[Raw]) -> datetime | None:
    """When the last of them did; None while one lives."""
    ends = [_end(pod)[0] for pod in pods]
    known = [at for at in ends if at]
    return max(known) if known and len(known) == len(ends) else None


def _began(held: _Held) -> datetime | None:
    """When its first container did: by the node's own clock, which may be behind. What never started says 1970."""
    states = [state for one in _containers(held.pod) for state in (one.get("state") or {}).values()]
    told = (moment(state.get("startedAt")) for state in states)
    began = min((at for at in told if at and at.timestamp() > 0), default=None)
    return max(began, held.started_at) if began else None


def _containers(pod: Raw) -> list[Raw]:
    return list((pod.get("status") or {}).get("containerStatuses") or ())


def _terminated(pod: Raw) -> list[Raw]:
    states = [(one.get("state") or {}).get("terminated") for one in _containers(pod)]
    return [state for state in states if state]


def _all_terminated(pod: Raw) -> bool:
    wanted = (pod.get("spec") or {}).get("containers") or _containers(pod)
    return bool(wanted) and len(_terminated(pod)) >= len(wanted)


def _standing(job: Raw, held: Sequence[_Held]) -> Standing:
    live = any(one.ended_at is None for one in held)
    if ended(job) and not (live and form_of(job) is TRAIN_JOB):
        return Standing.ENDED  # a TrainJob says so while its pods still have their grace time
    if live:
        return Standing.RUNNING
    if condition(job, "FailureTarget") and any(one.lost for one in held):
        return Standing.ENDED  # decided, and put off until the lost pods are gone
    if (job.get("spec") or {}).get("suspend"):
        told = notes_on(job)
        if CANCELLED in told:
            return Standing.ENDED
        return Standing.PENDING if RELEASED in told else Standing.SUSPENDED
    return Standing.PENDING


def _ended(seen: Observation, job: Raw, held: Sequence[_Held]) -> Observation:
    failed = condition(job, "Failed", "FailureTarget")
    stopped = None
    if CANCELLED in notes_on(job) and not condition(job, "Complete"):
        stopped = StopReason.CANCELLED
    elif failed and failed.get("reason") == "DeadlineExceeded":
        stopped = StopReason.DEADLINE
    held = _culprit_last(held, nodes(job))
    code, error = _exit(held, job)
    if condition(job, "Complete"):
        code = ExitCode.OK  # whatever became of its pods
    if code is None and not seen.progress.error and not error and stopped is None:
        error = _last_words(held, job)
    said = seen.progress.error or error
    return replace(
        seen,
        remedy=_more_memory(held, job),
        resumable=bool(held) and _keeps_output(job),
        exit_code=code,
        over_at=moment((condition(job, "Complete", "Failed") or {}).get("lastTransitionTime")),
        stopped=stopped,
        progress=replace(seen.progress, error=said) if code != 0 else seen.progress,
    )


def _culprit_last(held: Sequence[_Held], count: int) -> list[_Held]:
    """Of several nodes' pods, the one whose end ended the others is as the newest: the first that was not told to."""

    def blame(one: _Held) -> tuple[bool, float]:
        failed = any(state.get("exitCode", 0) not in _TOLD for state in _trainer(one.pod))
        return failed, -(one.ended_at or one.started_at).timestamp()

    return [*held[:-count], *sorted(held[-count:], key=blame)]


def _exit(held: Sequence[_Held], job: Raw) -> tuple[int | None, str | None]:
    """The exit status of the newest container that ended, as `Observation` has it, with a sentence where one helps."""
    for one in reversed(held):
        for state in _trainer(one.pod):
            code = int(state.get("exitCode", 0))
            if state.get("reason") == "OOMKilled":
                return ExitCode.OUT_OF_MEMORY, _out_of_memory(job)
            words = parse_lines(str(state.get("message") or "").splitlines()).error
            words = words or _not_its_own(one.pod, state, job)
            if state.get("reason") == "ContainerStatusUnknown":
                return None, words  # its status is made up
            return -(code - 128) if code > 128 else code, words
    return None, None


def _not_its_own(pod: Raw, state: Raw, job: Raw) -> str | None:
    """What ended a container where that was not its program, whose exit status then misleads."""
    code, reason, message = int(state.get("exitCode", 0)), state.get("reason"), clean(state.get("message"))
    if reason in _NOT_STARTED:
        advice = " Check that its image is a trainer's." if "exec: " in message else ""
        return f"Its container could not be started ({reason}): {message}.{advice}"
    if code in _KNOWN:
        return None
    if taken := _taken(pod, job):
        kept = code == ExitCode.INTERRUPTED and _keeps_output(job)
        return f"{taken} Its checkpoint is kept." if kept else taken
    return f"Nobody saw how its container ended: {message}." if reason == "ContainerStatusUnknown" else None


def _keeps_output(job: Raw) -> bool:
    if OUTPUT in notes_on(job):
        return True
    volumes = (job["spec"].get("template") or {"spec": {}})["spec"].get("volumes") or ()
    return any(one.get("name") == "output" and "persistentVolumeClaim" in one for one in volumes)


def _more_memory(held: Sequence[_Held], job: Raw) -> dict[str, int]:
    """Half as much again, where the kernel ended the newest container for its memory."""
    killed = bool(held) and any(state.get("reason") == "OOMKilled" for state in _trainer(held[-1].pod))
    limit = re.fullmatch(r"(\d+)Mi", str(limits(job).get("memory", "")))  # as the manifest writes it
    return {"memory_gib": math.ceil(int(limit[1]) * 1.5 / 1024)} if killed and limit else {}


def _trainer(pod: Raw) -> list[Raw]:
    """The trainer's terminated state; of any container's if it is not named so."""
    mine = [one for one in _containers(pod) if one.get("name") == CONTAINER] or _containers(pod)
    states = [(one.get("state") or {}).get("terminated") for one in mine]
    return [state for state in states if state]


def _out_of_memory(job: Raw) -> str:
    limit = f" of {memory}" if (memory := limits(job).get("memory")) else ""
    return (
        f"Out of memory: the training needed more than its limit{limit}. "
        "Propose it again with more memory_gib, or with a smaller batch_size."
    )


def _last_words(held: Sequence[_Held], job: Raw) -> str | None:
    """Of a training that left no exit status: why its pod was ended, else the Job's reason."""
    if taken := next(filter(None, (_taken(one.pod, job) for one in reversed(held))), None):
        return taken
    failed = condition(job, "Failed")
    return f"The cluster gave it up: {clean(failed['message'])}." if failed and failed.get("message") else None


def _taken(pod: Raw, job: Raw) -> str | None:
    """Why the cluster ended this pod (Evicted, …), if it did."""
    status = pod.get("status") or {}
    disrupted = condition(pod, "DisruptionTarget") or {}
    reason = status.get("reason") or disrupted.get("reason")
    if not reason:
        return None
    what = "Its node is gone" if disrupted.get("reason") == "DeletionByPodGC" else "The cluster ended its pod"
    why = clean(status.get("message") or disrupted.get("message"))
    return f"{what} ({clean(reason)}){': ' if why else ''}{why}.{_more_disk(why, job) if reason == 'Evicted' else ''}"


def _more_disk(why: str, job: Raw) -> str:
    """The setting that gives it more, where it wrote more than that: a TrainJob's volumes are its runtime's."""
    if not _DISK.search(why) or '"shm"' in why or ("EmptyDir" in why and form_of(job) is TRAIN_JOB):
        return ""
    return " It needs more disk: raise SIGNALBOX_CLUSTER_STORAGE_GIB."
