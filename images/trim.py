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
# What the rules would take, though it is imported: the first by numpy.testing, the next two by matplotlib.
KEPT = ("numpy/_core/tests/_natype.py", "fontTools/agl.py", "fontTools/misc/*Tools.py", "*/__init__.py")


def trimmed(path: str) -> bool:
    """Whether the file of this path below site-packages is taken out."""
    return any(fnmatch(path, rule) for rule in RULES) and not any(fnmatch(path, one) for one in KEPT)


def strippable(file: Path) -> bool:
    """Whether a compiled module brings debugging sections; others are left as they came."""
    return ".so" in file.name and file.is_file() and b".debug_info" in file.read_bytes()


def main(packages: Path) -> None:
    """Take both out, and say how much that was."""
    before = _weight(packages)
    for file in [one for one in packages.rglob("*") if one.is_file()]:
        if trimmed(file.relative_to(packages).as_posix()):
            file.unlink()
    for file in sorted(packages.rglob("*.so*")):
        if strippable(file):
            subprocess.run(["strip", "--strip-debug", str(file)], check=True)
    print(f"{before / 1e6:.0f} MB, now {_weight(packages) / 1e6:.0f} MB")


def _weight(folder: Path) -> int:
    return sum(one.lstat().st_size for one in folder.rglob("*") if one.is_file())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
