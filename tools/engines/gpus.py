"""Which GPUs this machine has, as the vendor's driver shows them; no framework is imported for it."""

from __future__ import annotations

import shutil
import subprocess


def detect() -> tuple[int, str | None]:
    """How many GPUs `nvidia-smi` lists, and the first one's product name. (0, None) without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0, None
    try:
        listed = subprocess.run(
            [program, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return 0, None
    names = [line.strip() for line in listed.stdout.splitlines() if line.strip()]
    return len(names), names[0] if names else None
