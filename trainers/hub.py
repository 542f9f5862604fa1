"""The Hugging Face hub, asked once whether it answers, so that nothing waits for it minutes later."""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.request
from pathlib import Path

from trainers.reporting import BadInput, note, one_line

HUB_SECONDS = 5.0  # for the hub to answer before it is taken for unreachable


def reach_hub(offline: bool) -> None:
    """Make the hub's libraries, before they are imported, use their cache alone if the hub does not answer.

    They would try for minutes; one short request tells the same.
    """
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not offline:
        try:
            request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 - the address is the operator's own
            with contextlib.suppress(urllib.error.HTTPError):  # an answer, though not a friendly one
                urllib.request.urlopen(request, timeout=HUB_SECONDS).close()  # noqa: S310
            return
        except (OSError, ValueError):
            note("The Hugging Face hub does not answer; what is in its cache is used.")
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"


def not_found(kind: str, name: str, path: Path, problem: Exception) -> BadInput:
    """What to say of a model or data set that is neither below the data folder nor on the hub."""
    reason = f"{type(problem).__name__}: {one_line(str(problem))[:160]}"
    return BadInput(
        f"The {kind} {name} is neither at {path} nor to be had from the Hugging Face hub ({reason}); "
        "put it there, or train with a connection to the hub and a name that it knows."
    )
