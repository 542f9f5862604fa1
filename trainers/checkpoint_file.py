"""A checkpoint as a file: written whole or not at all, and never read as anything but what was written.

The format of torch checks no sums when it is read: a bit that has changed would be a weight that has changed. So the
SHA-256 of all before it ends the file, where `torch.load` does not look.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MARK = b"SHA-256:"
TRAILER = len(MARK) + hashlib.sha256().digest_size


def write(state: dict[str, Any], path: Path) -> None:
    """Replace the file; `OSError` or, as torch reports a full disk, `RuntimeError` if it stays as it was."""
    import torch

    partial = path.with_suffix(".partial")
    try:
        with partial.open("w+b") as file:
            torch.save(state, file)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.write(MARK + digest)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError):
        partial.unlink(missing_ok=True)
        raise


def read(path: Path) -> dict[str, Any]:
    """The state, on the CPU; `ValueError` if it is not as it was written, or whatever torch raises of such a file."""
    import torch

    with path.open("rb") as file:
        _require_unchanged(file)
        file.seek(0)
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def fingerprint(tensors: Iterable[torch.Tensor]) -> str:
    """SHA-256 of the tensors' types, shapes and values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _require_unchanged(file: IO[bytes]) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - TRAILER))
    trailer = file.read()
    if not trailer.startswith(MARK):
        return  # of a version that wrote no sum
    digest, left = hashlib.sha256(), size - TRAILER
    file.seek(0)
    while left and (some := file.read(min(left, 1 << 20))):
        digest.update(some)
        left -= len(some)
    if digest.digest() != trailer[len(MARK) :]:
        raise ValueError("its SHA-256 is another than when it was written")
