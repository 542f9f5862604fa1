"""Takes out of an environment what no program of ours loads: `python trim.py SITE_PACKAGES`, in a build stage.

Files by rule, and debugging sections of compiled modules, for which it needs `strip` (Debian's binutils). Each rule
says why nobody misses the files. `size.py` reads the same rules, and `warm.py` imports afterwards all that the programs
import, so that a rule that goes too far breaks the build and not a training.
"""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

# Paths below site-packages, as fnmatch has them: `*` matches slashes too.
RULES: dict[str, str] = {
    "*.pyi": "for type checkers",
    "*.py[xd]": "Cython's sources; the compiled module lies beside them",
    "*.c": "sources of compiled modules",
    "*.cpp": "sources of compiled modules",
    "*.h": "for compilers, and the images have none",
    "*.hpp": "for compilers",
    "*.cuh": "for compilers",
    "*.a": "static libraries, for linkers",
    "*.cmake": "for builds",
    "*/tests/*": "packages' own tests",
    "kubernetes/*client/models/*.py": "typed models, loaded at first use; tools/engines/kubernetes speaks raw JSON",
    "kubernetes/*client/api/*_api.py": "typed calls, loaded at first use; only the transport is used",
    "zstandard/_cffi.*": "zstandard's module for PyPy; CPython loads backend_c",
    "fontTools/*": "fonts in PDF and PostScript; the bot draws PNG, which asks for glyphs' names alone",
    "PIL/_avif.*": "AVIF pictures; the bot draws PNG",
    "pillow.libs/libavif-*": "the same",
    "matplotlib/mpl-data/sample_data/*": "pictures for matplotlib's examples",
    "nvidia/nvshmem/lib/*.bc": "for kernels that are compiled with NVSHMEM; PyTorch links its host library alone",
    "torch/bin/*": "PyTorch's build tools and tests",
}
# What the rules would take, though it is needed: by numpy.testing, by matplotlib (two), by `import torch` itself.
KEPT = (
    "numpy/_core/tests/_natype.py",
    "fontTools/agl.py",
    "fontTools/misc/*Tools.py",
    "torch/bin/torch_shm_manager",
    "*/__init__.py",
)


def trimmed(path: str) -> bool:
    """Whether the file of this path below site-packages is taken out."""
    return any(fnmatch(path, rule) for rule in RULES) and not any(fnmatch(path, one) for one in KEPT)


def strippable(name: str) -> bool:
    """Whether it is a compiled module of Python's. Libraries that wheels bring along are left as they came."""
    return name.endswith(".so") and (".cpython-" in name or ".abi3." in name)


def strip(file: Path) -> None:
    """Take its debugging sections, unless the result could not be loaded: wheels' makers move things about in them."""
    if b".debug_info" not in file.read_bytes():
        return
    stripped = file.with_name(f"{file.name}.stripped")
    subprocess.run(["strip", "--strip-debug", "-o", str(stripped), str(file)], check=True)
    if aligned(stripped.read_bytes()):
        stripped.replace(file)
    else:
        stripped.unlink()


def aligned(elf: bytes) -> bool:
    """Whether the loader would map a 64-bit ELF file: each segment's offset and address agree within a page."""
    number = lambda at, length: int.from_bytes(elf[at : at + length], "little")  # noqa: E731 - where ELF has it
    headers, each, count = number(32, 8), number(54, 2), number(56, 2)
    segments = [at for at in range(headers, headers + count * each, each) if number(at, 4) == 1]
    return all((number(at + 8, 8) - number(at + 16, 8)) % number(at + 48, 8) == 0 for at in segments)


def main(packages: Path) -> None:
    """Take both out, and say how much that was."""
    before = _weight(packages)
    for file in [one for one in packages.rglob("*") if one.is_file()]:
        if trimmed(file.relative_to(packages).as_posix()):
            file.unlink()
    for file in sorted(one for one in packages.rglob("*.so") if strippable(one.name)):
        strip(file)
    print(f"{before / 1e6:.0f} MB, now {_weight(packages) / 1e6:.0f} MB")


def _weight(folder: Path) -> int:
    return sum(one.lstat().st_size for one in folder.rglob("*") if one.is_file())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
