"""Out of memory, in words: whether that is what happened, and which batch size would fit.

torch says how much it tried to allocate, and the machine how much is left. What a step needs grows with the batch, so
the batch is halved until its share of the allocation fits; halves are powers of two, which kernels like best.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
TRIED = re.compile(r"tried to allocate (\d+(?:\.\d+)?) (bytes|[KMGT]iB)", re.IGNORECASE)
# Versions 2 and 1 of Linux's control groups, as a container sees its own: limit, what is held, statistics, and what in
# these counts files' pages that the kernel drops first.
CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an allocation failed, on GPU or CPU; torch tells the latter by its words alone."""
    return isinstance(problem, MemoryError) or (
        isinstance(problem, RuntimeError) and any(word in str(problem).lower() for word in WORDS)
    )


def advice(problem: BaseException, batch_size: int | None, device: str) -> str:
    """One sentence: what did not fit, and the batch size that should; `device` is "cpu" or "cuda"."""
    tried = _tried(problem)
    where = "The GPU's memory" if device == "cuda" else "The memory"
    what = f"{where} did not suffice" + (f" for another {tried / 2**30:.2g} GiB" if tried else "")
    if batch_size is None:
        return f"{what}; train on a machine with more of it."
    fitting = fitting_batch(batch_size, tried, _room(device))
    if fitting is None:
        return f"{what}, even for a batch size of {batch_size}; train on a machine with more of it."
    return f"{what}; train with a batch size of {fitting}, which should fit, or on a machine with more of it."


def fitting_batch(batch_size: int, tried: float, room: float) -> int | None:
    """The largest power of two below `batch_size` whose share of `tried` bytes fits into `room`; None if none does."""
    if batch_size < 2:
        return None
    fitting = 1 << ((batch_size - 1).bit_length() - 1)
    while fitting > 1 and tried * fitting / batch_size > room:
        fitting //= 2
    return fitting


def _tried(problem: BaseException) -> float:
    """Bytes that were asked for, 0 if the message does not say."""
    found = TRIED.search(str(problem))
    if found is None:
        return 0.0
    unit = next(size for name, size in UNITS.items() if name.lower() == found[2].lower())
    return float(found[1]) * unit


def _room(device: str) -> float:
    """Bytes that are free by now; the failed step's tensors are let go of already."""
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        return float(torch.cuda.mem_get_info()[0])
    import psutil  # type: ignore[import-untyped]

    return min(float(psutil.virtual_memory().available), container_room())


def container_room(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that a container's own limit leaves, infinite where there is none: `free` tells of the whole machine."""
    for limit, used, statistics, droppable in CGROUPS:
        try:
            most, held = ((root / name).read_text(encoding="ascii").strip() for name in (limit, used))
            lines = (root / statistics).read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        if most != "max":
            cached = next((int(line.split()[1]) for line in lines if line.split()[0] == droppable), 0)
            return float(max(0, int(most) - int(held) + cached))
    return math.inf
