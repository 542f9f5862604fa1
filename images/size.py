"""What each image weighs, layer by layer, without a container engine: `make images-size`.

Which packages are installed is read from the Dockerfile and `uv.lock`; what they weigh unpacked stands in each wheel's
central directory, which an HTTP range request fetches, once (build/wheels, by the wheel's own hash). `trim.py` is
applied to the names, as it is to the files. Sizes are sums of file lengths in MB of 1,000,000 bytes, as engines count.
Three figures are not measured here, and marked: the base, the bytecode, and PyTorch's CPU build (see SOURCES).
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

sys.path.insert(0, str(Path(__file__).parent))
import trim

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "wheels"
MB = 1_000_000
GOALS = {"bot": 450, "trainer-cpu": 1600, "trainer-cuda": 5500}
BASE = 130.0
BYTECODE = {"bot": 69.0, "trainer-cpu": 125.0, "trainer-cuda": 125.0}
SOURCES = f"""\
¹ {BASE:.0f} MB: docker-library/repo-info, repos/python/local/3.11-slim-bookworm.md ("Virtual Size: ~ 130.01 Mb").
² Measured in a root file system built by `make test-images`, which holds this figure to what it finds.
³ Reckoned: the CUDA wheel's files without CUDA's (libtorch_cuda*, libc10_cuda, libtorch_nvshmem, libcaffe2_nvrtc);
  PyTorch's own index, where the CPU build is, is not PyPI.
Debugging sections that `strip` takes are looked for in wheels up to {{small:.0f}} MB; of larger ones more may go."""
SMALL = 30 * MB  # wheels up to this size are fetched whole, to look at their debugging sections
CUDA_ONLY = ("libtorch_cuda", "libc10_cuda", "libtorch_nvshmem", "libcaffe2_nvrtc")
CPU_BUILDS = ("torch", "torchvision")
EXPORT = (
    "export",
    "--frozen",
    "--no-default-groups",
    "--no-emit-project",
    "--no-hashes",
    "--no-header",
    "--no-annotate",
)
MACHINE = {
    "python_full_version": "3.11.16",
    "python_version": "3.11",
    "sys_platform": "linux",
    "os_name": "posix",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
    "extra": "",
}
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
TAGS = [*cpython_tags((3, 11), platforms=PLATFORMS), *compatible_tags((3, 11), "cp311", PLATFORMS)]


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """`files`: bytes by name, unpacked; `debug`: bytes that `strip` takes, as far as they were looked at."""

    package: str
    files: dict[str, int]
    debug: dict[str, int]

    def megabytes(self, cpu: bool = False) -> float:
        """What stays of it in an image."""
        kept = {name: size for name, size in self.files.items() if not trim.trimmed(name)}
        if cpu:
            kept = {name: size for name, size in kept.items() if not any(part in name for part in CUDA_ONLY)}
        return sum(size - (self.debug.get(name, 0) if trim.strippable(name) else 0) for name, size in kept.items()) / MB

    @property
    def whole(self) -> float:
        return sum(self.files.values()) / MB


class Remote(io.RawIOBase):
    """A file on a server that knows ranges, read where zipfile seeks to."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._at = url, size, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._size, self._at + len(buffer))
        if end <= self._at:
            return 0
        asked = urllib.request.Request(self._url, headers={"Range": f"bytes={self._at}-{end - 1}"})  # noqa: S310
        with urllib.request.urlopen(asked, timeout=120) as answer:  # noqa: S310 - addresses of uv.lock
            found = answer.read()
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def installed(image: str, lock: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The image's packages with their wheel, as the lock has it: `url`, `hash` and `size`."""
    text = (ROOT / "images" / f"{image}.Dockerfile").read_text(encoding="utf-8")
    extra = re.search(r"--extra (\w+)", text)
    assert extra
    left_out = set(re.findall(r"--no-install-package ([\w-]+)", text)) - set(CPU_BUILDS)
    if "gpu-packages.txt" in text:
        left_out |= set((ROOT / "images" / "gpu-packages.txt").read_text(encoding="utf-8").split())
    uv = ROOT / ".uv" / "bin" / "uv"
    listed = subprocess.run(
        [str(uv) if uv.exists() else "uv", *EXPORT, "--extra", extra[1]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in listed.splitlines():
        wanted = Requirement(line)
        if wanted.name in left_out or (wanted.marker and not wanted.marker.evaluate(MACHINE)):
            continue
        version = str(wanted.specifier).removeprefix("==")
        (package,) = [one for one in lock["package"] if (one["name"], one["version"]) == (wanted.name, version)]
        yield wanted.name, _best(package.get("wheels", []), wanted.name)


def _best(wheels: list[dict[str, Any]], name: str) -> dict[str, Any]:
    def rank(wheel: dict[str, Any]) -> int:
        tags = parse_wheel_filename(urllib.request.unquote(wheel["url"].rsplit("/", 1)[1]))[3]
        return min((TAGS.index(tag) for tag in tags if tag in TAGS), default=len(TAGS))

    best = min(wheels, key=rank, default=None)
    if best is None or rank(best) == len(TAGS):
        raise SystemExit(f"{name} has no wheel for Linux on x86-64 and Python 3.11; it would be built from source.")
    return best


def looked_up(package: str, wheel: dict[str, Any]) -> Wheel:
    """The wheel's contents, from the cache or the registry."""
    kept = CACHE / f"{wheel['hash'].removeprefix('sha256:')}.json"
    if not kept.exists():
        small = wheel["size"] <= SMALL
        remote = io.BufferedReader(Remote(wheel["url"], wheel["size"]), wheel["size"] if small else 1 << 18)
        with zipfile.ZipFile(remote) as archive:
            found = {one.filename: one.file_size for one in archive.infolist() if not one.is_dir()}
            compiled = [name for name in found if trim.strippable(name)] if small else []
            debug = {name: bytes_ for name in compiled if (bytes_ := debugging(archive.read(name)))}
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"files": found, "debug": debug}), encoding="utf-8")
    return Wheel(package=package, **json.loads(kept.read_text(encoding="utf-8")))


def debugging(elf: bytes) -> int:
    """Bytes of a 64-bit ELF file's .debug_* sections; 0 for what is none."""
    if elf[:5] != b"\x7fELF\x02":
        return 0
    number = lambda at, length: int.from_bytes(elf[at : at + length], "little")  # noqa: E731 - where ELF's header has it
    table, each, count, names = number(40, 8), number(58, 2), number(60, 2), number(62, 2)
    texts = number(table + names * each + 24, 8)
    total = 0
    for at in range(table, table + count * each, each):
        if elf[texts + number(at, 4) :][:7] == b".debug_":
            total += number(at + 32, 8)
    return total


def project(image: str) -> float:
    """The project's own files in it."""
    folders = ("bot", "tools") if image == "bot" else ("trainers",)
    files = [one for folder in folders for one in (ROOT / folder).rglob("*") if one.is_file() and one.suffix != ".pyc"]
    return sum(one.stat().st_size for one in files) / MB


def table(image: str, wheels: list[Wheel]) -> str:
    """The image's layers, its ten heaviest packages, and whether it meets its goal."""
    cpu = image == "trainer-cpu"
    weights = {one.package: one.megabytes(cpu and one.package in CPU_BUILDS) for one in wheels}
    dependencies = sum(weights.values())
    total = BASE + dependencies + project(image) + BYTECODE[image]
    trimmed = sum(one.whole for one in wheels if not (cpu and one.package in CPU_BUILDS)) - sum(
        weight for name, weight in weights.items() if not (cpu and name in CPU_BUILDS)
    )
    rows = [(f"{image}", ""), ("  base: python:3.11-slim-bookworm ¹", f"{BASE:.0f}")]
    rows.append((f"  dependencies: {len(wheels)} packages ({trimmed:.0f} MB trimmed)", f"{dependencies:.0f}"))
    for name in sorted(weights, key=lambda one: -weights[one])[:10]:
        rows.append((f"    {name}{' ³' if cpu and name in CPU_BUILDS else ''}", f"{weights[name]:.0f}"))
    rows += [("  project", f"{project(image):.1f}"), ("  bytecode of what is imported ²", f"{BYTECODE[image]:.0f}")]
    met = "met" if total < GOALS[image] else "NOT met"
    rows.append((f"  total (goal: below {GOALS[image]} MB, {met})", f"{total:.0f}"))
    return "\n".join(f"{name:<62}{size:>8}" for name, size in rows)


def main() -> int:
    """Print all tables; 1 if a goal is missed."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    tables = []
    with ThreadPoolExecutor(8) as pool:
        for image in GOALS:
            tables.append(table(image, list(pool.map(lambda one: looked_up(*one), installed(image, lock)))))
    print("MB unpacked, Linux on x86-64\n\n" + "\n\n".join(tables) + "\n\n" + SOURCES.format(small=SMALL / MB))
    return int(any("NOT met" in one for one in tables))


if __name__ == "__main__":
    sys.exit(main())
