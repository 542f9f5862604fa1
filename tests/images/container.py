"""Builds and runs the images without a container engine: the Dockerfile's own steps in namespaces and a chroot.

Needs root on Linux, and the package registries while it builds. The base image cannot be had without a registry of
images, so Debian bookworm from debootstrap, with Debian's own Python 3.11, stands in for python:3.11-slim-bookworm.
What runs has what the cluster's pods have: uid 10001, no capability, no new privileges, a read-only root, a /tmp of its
own, the volumes it is given, and here no network but the loopback.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.images.dockerfile import ROOT, Stage, Step, context, expanded, read

CACHE = ROOT / "build" / "images"
PACKAGES = "python3,python3-venv,ca-certificates,netbase,tzdata"
MIRROR = "http://deb.debian.org/debian"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# A build takes from its surroundings how packages are reached, as Docker does with its proxy arguments.
REACH = ("_PROXY", "PIP_", "UV_", "SSL_CERT_")


def base() -> Path:
    """The root file system that stands in for the base image; made once."""
    place = CACHE / "base"
    if (place / "usr/local/bin/python").is_symlink():
        return place
    shutil.rmtree(place, ignore_errors=True)
    tool = CACHE / "debootstrap"
    tool.mkdir(parents=True, exist_ok=True)
    _do("apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", "debootstrap", cwd=tool)
    (package,) = tool.glob("debootstrap_*.deb")
    _do("dpkg-deb", "-x", str(package), ".", cwd=tool)
    scripts = {"DEBOOTSTRAP_DIR": str(tool / "usr/share/debootstrap")}
    script = str(tool / "usr/sbin/debootstrap")
    _do("sh", script, "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(place), MIRROR, more=scripts)
    for name in ("python3.11", "python3", "python"):
        (place / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")
    return place


@dataclass
class Image:
    """A root file system with what its Dockerfile says of running it."""

    root: Path
    env: dict[str, str]
    workdir: str = "/"
    user: str = "0:0"
    command: list[str] = field(default_factory=list)

    def run(
        self,
        *command: str,
        volumes: Mapping[str, Path] | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        seconds: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, by default the image's own, as a pod would. `volumes`: writable folders by where they show."""
        mounts = ["mount -t tmpfs -o mode=1777 tmp tmp", "mount -t tmpfs -o mode=1777 shm dev/shm"]
        for place, folder in (volumes or {}).items():
            (self.root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
            uid, gid = map(int, self.user.split(":"))
            os.chown(folder, uid, gid)
            mounts.append(f"mount --bind {shlex.quote(str(folder))} {shlex.quote(place.lstrip('/'))}")
        uid, gid = self.user.split(":")
        held = ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", "--no-new-privs"]
        held += ["--bounding-set=-all", "--inh-caps=-all"]
        return self._inside(
            [*held, *(command or self.command)], mounts, {**self.env, **(env or {})}, stdin, seconds, alone=True
        )

    def build_step(self, shell: Sequence[str], script: str, mounts: Sequence[str], env: Mapping[str, str]) -> None:
        """One RUN, as root and with the network."""
        ended = self._inside([*shell, script], mounts, env, "", 1200, alone=False)
        assert ended.returncode == 0, f"{script}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
        print(ended.stdout[-200:])

    def _inside(
        self,
        command: Sequence[str],
        mounts: Sequence[str],
        env: Mapping[str, str],
        stdin: str,
        seconds: float,
        *,
        alone: bool,
    ) -> subprocess.CompletedProcess[str]:
        """`mounts` are made below the root, which is then read-only if `alone`; nothing of it outlives the command."""
        script = [
            "set -e",
            f"mount --bind {shlex.quote(str(self.root))} {shlex.quote(str(self.root))}",
            f"cd {shlex.quote(str(self.root))}",
            *(["mount -o remount,bind,ro ."] if alone else []),
            "mount -t proc proc proc",
            "mount -t tmpfs -o mode=755 dev dev",
            "mkdir dev/shm",
            *(f"touch dev/{one}; mount --bind /dev/{one} dev/{one}" for one in ("null", "zero", "urandom", "random")),
            "ln -s /proc/self/fd dev/fd",
            *mounts,
            *(["ip link set lo up || true"] if alone else []),
            f'exec chroot . /usr/bin/env -i -C {shlex.quote(self.workdir)} "$@"',
        ]
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *(["--net", "--ipc"] if alone else [])]
        variables = [f"{name}={value}" for name, value in env.items()]
        return subprocess.run(
            [*spaces, "sh", "-c", "\n".join(script), "sh", *variables, *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


def build(name: str, arguments: Mapping[str, str] | None = None) -> Image:
    """Follow the image's Dockerfile, step by step; the caller removes the folder above its root.

    `arguments` are build arguments.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=CACHE))
    place.chmod(0o755)
    try:
        return _stages(name, place, arguments or {})
    except BaseException:
        shutil.rmtree(place)
        raise


def _stages(name: str, place: Path, arguments: Mapping[str, str]) -> Image:
    stages: dict[str, Image] = {}
    for stage in read(name).stages:
        assert stage.base == "${PYTHON}", stage.base
        root = place / stage.name
        _do("cp", "-a", str(base()), str(root))
        stages[stage.name] = _follow(stage, Image(root, {"PATH": PATH, "LANG": "C.UTF-8"}), stages, arguments)
    return stages[stage.name]


def _follow(stage: Stage, image: Image, stages: Mapping[str, Image], arguments: Mapping[str, str]) -> Image:
    shell = ["/bin/sh", "-c"]
    given: dict[str, str] = {}
    for step in stage.steps:
        match step.kind:
            case "ARG":
                key, _, value = step.rest.partition("=")
                given[key] = arguments.get(key, value)
            case "ENV":
                known = {**given, **image.env}
                image.env |= {key: expanded(value, known) for key, value in step.pairs().items()}
            case "WORKDIR":
                image.workdir = step.rest
                (image.root / step.rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "SHELL":
                shell = json.loads(step.rest)
            case "USER":
                image.user = step.rest
            case "CMD":
                image.command = json.loads(step.rest)
            case "COPY":
                _copy(step, image, stages, given)
            case "RUN":
                env = {**_reach(), **given, **image.env}
                image.build_step(shell, step.rest, [*_network(image.root), *_mounts(step, image.root)], env)
    return image


def _copy(step: Step, image: Image, stages: Mapping[str, Image], given: Mapping[str, str]) -> None:
    *sources, target = expanded(step.rest, {**given, **image.env}).split()
    place = image.root / os.path.normpath(os.path.join(image.workdir, target)).lstrip("/")
    if "from" in dict(step.flags):
        (source,) = sources
        place.parent.mkdir(parents=True, exist_ok=True)
        # Hard links will do: no step writes into a file that is there.
        _do("cp", "-al", str(stages[dict(step.flags)["from"]].root / source.lstrip("/")), str(place))
        return
    sent = context()
    for source in sources:
        files = [path for path in sent if path == source or path.startswith(f"{source}/")]
        assert files, f"nothing is sent of {source}"
        for path in files:
            inside = Path(path).relative_to(source) if path != source else Path()
            at = place / (inside if path != source else (Path(source).name if target.endswith("/") else ""))
            at.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, at)


def _mounts(step: Step, root: Path) -> list[str]:
    made = []
    for flag, value in step.flags:
        assert flag == "mount", flag
        options = dict(part.split("=", 1) for part in value.split(","))
        inside = root / options["target"].lstrip("/")
        if options["type"] == "cache":
            source = Path(os.environ.get("UV_CACHE_DIR", Path.home() / ".cache" / "uv"))
            source.mkdir(parents=True, exist_ok=True)
            inside.mkdir(parents=True, exist_ok=True)
        else:
            source = ROOT / options["source"]
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.touch()
        made.append(f"mount --bind {shlex.quote(str(source))} {options['target'].lstrip('/')}")
    return made


def _network(root: Path) -> list[str]:
    """This machine's way to the registries: names, and the certificates that it trusts."""
    made = []
    for path in ("etc/resolv.conf", "etc/hosts", "etc/ssl/certs/ca-certificates.crt"):
        if Path("/", path).exists():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
            made.append(f"mount --bind /{path} {path}")
    return made


def _reach() -> dict[str, str]:
    values = {key: value for key, value in os.environ.items() if any(part in key.upper() for part in REACH)}
    values.pop("PIP_FIND_LINKS", None)  # a folder of this machine
    return {key: value for key, value in values.items() if not key.startswith("UV_PROJECT")}


def _do(*command: str, cwd: Path | None = None, more: Mapping[str, str] | None = None) -> None:
    ended = subprocess.run(command, cwd=cwd, env={**os.environ, **(more or {})}, capture_output=True, text=True)
    assert ended.returncode == 0, f"{shlex.join(command)}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
