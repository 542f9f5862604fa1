"""Reads the Dockerfiles of images/ and .dockerignore, as far as those use the language; anything else is an error."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
NAMES = ("bot", "trainer-cpu", "trainer-cuda")
KNOWN = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "SHELL", "LABEL", "USER", "EXPOSE", "STOPSIGNAL", "CMD"}


@dataclass(frozen=True)
class Step:
    """One instruction. `flags` are its --name=value, `rest` what follows them, lines joined."""

    kind: str
    rest: str
    flags: tuple[tuple[str, str], ...] = ()

    def words(self) -> list[str]:
        return shlex.split(self.rest)

    def pairs(self) -> dict[str, str]:
        """Of ENV and LABEL."""
        return dict(word.split("=", 1) for word in self.words())


@dataclass
class Stage:
    """From one FROM to the next."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def all(self, kind: str) -> list[Step]:
        return [step for step in self.steps if step.kind == kind]


@dataclass
class Dockerfile:
    """`arguments` are those before the first FROM."""

    arguments: dict[str, str]
    stages: list[Stage]

    @property
    def last(self) -> Stage:
        return self.stages[-1]


def read(name: str) -> Dockerfile:
    """The Dockerfile of the image `name`."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for step in _steps((IMAGES / f"{name}.Dockerfile").read_text(encoding="utf-8")):
        if step.kind == "FROM":
            base, _, alias = step.rest.partition(" AS ")
            stages.append(Stage(base, alias or f"stage-{len(stages)}"))
        elif stages:
            stages[-1].steps.append(step)
        else:
            assert step.kind == "ARG", step
            key, _, value = step.rest.partition("=")
            arguments[key] = value
    return Dockerfile(arguments, stages)


def _steps(text: str) -> Iterator[Step]:
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for line in re.sub(r"\s*\\\n\s*", " ", lines).splitlines():
        if not line.strip():
            continue
        kind, _, rest = line.strip().partition(" ")
        assert kind in KNOWN, f"this reader does not know {kind}"
        flags = []
        while kind in {"COPY", "RUN"} and rest.startswith("--"):
            flag, _, rest = rest.partition(" ")
            key, _, value = flag.removeprefix("--").partition("=")
            flags.append((key, value))
        yield Step(kind, rest, tuple(flags))


def expanded(text: str, values: Mapping[str, str]) -> str:
    """`text` with ${NAME} replaced."""
    return re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], text)


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps this path below the root out of the build; the last rule that fits decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        rule = line.removeprefix("!")
        parts = path.split("/")
        above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if any(_fits(one, rule) for one in above):
            out = not line.startswith("!")
    return out


def _fits(path: str, rule: str) -> bool:
    if rule.startswith("**/"):
        return any(fnmatch(part, rule[3:]) for part in path.split("/"))
    return path.count("/") == rule.count("/") and fnmatch(path, rule)


def context() -> list[str]:
    """The files, relative to the root, that a build is sent."""
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    within = {rule[1:].split("/")[0] for rule in rules if rule.startswith("!")}  # environments need not be walked
    places = [one for one in ROOT.iterdir() if not ignored(one.name) or one.name in within]
    found = [file for one in places for file in ([one] if one.is_file() else one.rglob("*")) if file.is_file()]
    return sorted(path for file in found if not ignored(path := file.relative_to(ROOT).as_posix()))
