"""Why a released training does not start or get on, in one sentence with the next step where there is one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tools.engines.kubernetes.forms import JOB, form_of

Raw = Mapping[str, Any]

GONE_AT = "goneAt"  # beside a pod's metadata and status: when it was seen to be deleted
LOST_SECONDS = 120  # after a pod's time to end is over, that its node has to say that it did
LIMIT = 300  # characters of the cluster's own words
_IMAGE = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_BEGINNING = frozenset({"ContainerCreating", "PodInitializing"})  # no trouble, only the beginning


def waiting(
    job: Raw,
    pods: Sequence[Raw],
    events: Sequence[Raw],
    place: str = "",
    now: datetime | None = None,
    ended_at: datetime | None = None,
) -> str:
    """The nearest cause wins: the container, then the scheduler, then what keeps the pod from being made.

    `place` is where it stands in line, a part of a sentence. Details come behind a colon: people hear of a kind once.
    `ended_at` is when the last of its pods did, if all have: what a controller said before is history.
    """
    live = sorted((pod for pod in pods if _live(pod)), key=_born, reverse=True)
    if live:
        told = (
            _of_node(pod, events) or _of_containers(pod) or _of_scheduler(pod, place) or _of_events(pod, events)
            for pod in live
        )
        return next(filter(None, told), "")
    if silent := next((pod for pod in pods if lost(pod, now)), None):
        return _no_answer(silent)
    if pods and not (job.get("spec") or {}).get("suspend"):
        return _of_controller(job, events, after=ended_at) if ended_at else ""  # between two attempts
    return _of_queue(job, events, place) or _of_controller(job, events)


def lost(pod: Raw, now: datetime | None) -> bool:
    """Whether it should be over and its node does not say so; while that is away, it may be so for ever."""
    until = pod["metadata"].get("deletionTimestamp") if (pod.get("spec") or {}).get("nodeName") else None
    over = GONE_AT in pod or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    if not until or over or now is None:
        return False
    return now > datetime.fromisoformat(until) + timedelta(seconds=LOST_SECONDS)


def queue_of(job: Raw) -> str:
    """The LocalQueue that keeps it suspended; nothing if none does."""
    if not (job.get("spec") or {}).get("suspend"):
        return ""
    return str((job["metadata"].get("labels") or {}).get("kueue.x-k8s.io/queue-name") or "")


def unscheduled(pods: Sequence[Raw]) -> Raw | None:
    """The newest pod, if it lives and no node has taken it."""
    live = [pod for pod in pods if _live(pod)]
    newest = max(live, key=_born) if live else None
    return newest if newest is not None and _refused(newest) is not None else None


def clean(text: object) -> str:
    """The cluster's words: one printable line of bounded length, without its full stop."""
    line = " ".join("".join(char if char.isprintable() else " " for char in str(text or "")).split()).rstrip(" .:")
    return line[:LIMIT] + "…" if len(line) > LIMIT else line


def _live(pod: Raw) -> bool:
    gone = GONE_AT in pod or pod["metadata"].get("deletionTimestamp")
    return not gone and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def _born(pod: Raw) -> tuple[str, str]:
    return str(pod["metadata"].get("creationTimestamp") or ""), str(pod["metadata"]["name"])


def _of_node(pod: Raw, events: Sequence[Raw]) -> str:
    """That its node is away, as its controller says of every pod there, until that takes the pod for lost."""
    status = pod.get("status") or {}
    ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or ())
    if status.get("phase") != "Running" or ready:
        return ""
    found = _latest(events, "Pod", pod["metadata"]["name"])
    return _no_answer(pod) if found and found.get("reason") == "NodeNotReady" else ""


def _no_answer(pod: Raw) -> str:
    node = clean((pod.get("spec") or {}).get("nodeName"))
    return (
        f"Its node does not answer: {node}. The training goes on when the node is back, or on another once an "
        "administrator has deleted that Node."
    )


def _of_containers(pod: Raw) -> str:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        state = (status.get("state") or {}).get("waiting") or {}
        reason = str(state.get("reason") or "")
        if reason in _IMAGE:
            image = status.get("image") or _image(pod, str(status.get("name")))
            return (
                f"Its image {clean(image)} cannot be pulled ({clean(reason)}). Check the image's name, "
                "and that the cluster's nodes may pull it."
            )
        if reason and reason not in _BEGINNING:
            return f"Its container does not start ({clean(reason)}): {clean(state.get('message'))}."
    return ""


def _image(pod: Raw, name: str) -> str:
    listed = (pod.get("spec") or {}).get("containers") or ()
    return next((str(one.get("image")) for one in listed if one.get("name") == name), "")


def _of_scheduler(pod: Raw, place: str) -> str:
    one = _refused(pod)
    if one is None:
        return ""
    if one.get("reason") == "SchedulingGated":
        return "It waits for a scheduling gate to open."
    return f"No node can take it now: {_joined(place, clean(one.get('message') or one.get('reason')))}."


def _refused(pod: Raw) -> Raw | None:
    """The scheduler's condition, while it says no."""
    listed = (pod.get("status") or {}).get("conditions") or ()
    return next((one for one in listed if one.get("type") == "PodScheduled" and one.get("status") == "False"), None)


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _of_events(pod: Raw, events: Sequence[Raw]) -> str:
    """The latest warning, unless the container runs: then it is history."""
    status = pod.get("status") or {}
    if status.get("phase") == "Running":
        return ""
    found = _latest(events, "Pod", pod["metadata"]["name"])
    return f"{clean(found.get('reason'))}: {clean(found.get('message'))}." if found else ""


def _of_queue(job: Raw, events: Sequence[Raw], place: str) -> str:
    """Kueue's reason: a warning on the Job's Workload, whose name begins with the Job's."""
    if not (job.get("spec") or {}).get("suspend"):
        return ""
    label = queue_of(job)
    if not label:
        return "Somebody suspended its Job; it goes on when that is resumed."
    prefix = f"job-{job['metadata']['name']}-"
    mine = [one for one in events if _about(one, "Workload")]
    mine = [one for one in mine if str(one["involvedObject"].get("name")).startswith(prefix)]
    why = _joined(place, clean(max(mine, key=_told).get("message")) if mine else "")
    return f"It waits in the queue {clean(label)}{': ' if why else ''}{why}."


def _of_controller(job: Raw, events: Sequence[Raw], after: datetime | None = None) -> str:
    meta, form = job["metadata"], form_of(job)
    if form is JOB:
        found = _latest(events, "Job", meta["name"], uid=meta.get("uid"))
    else:
        found = max((one for one in events if _below(one, form.warned, meta["name"])), key=_told, default=None)
    if found is None or (after and _told(found) <= f"{after.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"):
        return ""
    message = clean(found.get("message"))
    if "exceeded quota" in message:
        said = message[message.index("exceeded quota") :]
        return f"The namespace's quota is used up ({said}). It starts when another training ends."
    if found.get("reason") == "FailedCreate":
        return f"The cluster refuses its pod: {message}."
    return f"{clean(found.get('reason'))}: {message}."


def _latest(events: Sequence[Raw], kind: str, name: str, uid: str | None = None) -> Raw | None:
    mine = [one for one in events if _about(one, kind) and one["involvedObject"].get("name") == name]
    mine = [one for one in mine if not uid or one["involvedObject"].get("uid") in (None, "", uid)]
    return max(mine, key=_told) if mine else None


def _below(event: Raw, kinds: Sequence[str], name: str) -> bool:
    """Whether it is about an object of that name, or about what that made."""
    involved = event.get("involvedObject") or {}
    return involved.get("kind") in kinds and f"{involved.get('name')}-".startswith(f"{name}-")


def _about(event: Raw, kind: str) -> bool:
    involved = event.get("involvedObject") or {}
    return event.get("type") in (None, "Warning") and involved.get("kind") in (None, kind)


def _told(event: Raw) -> str:
    """When it was last said; the API's times sort as text."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max(str(time or "") for time in (*times, event["metadata"].get("creationTimestamp")))
