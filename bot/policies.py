"""The policy in force: read from its file, again whenever that changes, with user groups looked up.

A file that became wrong does not take effect: the last right one stays, and the log says why. A group that cannot be
looked up has no members, so nobody gains a right by an outage.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Protocol

import yaml

from bot.core.errors import Misconfigured, Unavailable
from bot.core.policy import Policy

LOOK_SECONDS = 0.5  # until the file is looked at again: a change takes effect that soon, and clicks do not wait for it

log = logging.getLogger(__name__)


class Groups(Protocol):
    """Who is in a user group. Raises `Unavailable` if that cannot be looked up."""

    async def members(self, team: str, group: str) -> frozenset[str]: ...


class Policies(Protocol):
    """The policy of a channel, as it is now."""

    async def of(self, team: str, channel: str) -> Policy: ...

    async def whole(self) -> Policy:
        """All of it as it is written, groups not looked up: for what has to do with nobody's rights."""


class PolicyFile:
    """The policy of a file; `groups` may be set once a surface can look them up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._policy = read_policy(path)
        self._seen = _stamp(path)
        self._look_next = 0.0
        self.groups: Groups | None = None

    async def of(self, team: str, channel: str) -> Policy:
        policy = (await self.whole()).in_channel(channel)
        if not policy.approver_groups:
            return policy
        found: frozenset[str] = frozenset()
        for group in sorted(policy.approver_groups):
            found |= await self._members(team, group)
        return policy.with_members(found)

    async def whole(self) -> Policy:
        """All of it, as it stands in the file now."""
        if time.monotonic() < self._look_next:
            return self._policy
        self._look_next = time.monotonic() + LOOK_SECONDS
        stamp = _stamp(self._path)
        if stamp != self._seen:
            try:
                self._policy = await asyncio.to_thread(read_policy, self._path)
                log.info("the policy was read again from %s", self._path)
            except Misconfigured as error:
                log.error("the changed policy is wrong and has no effect: %s", error)
            self._seen = stamp  # not before: whoever is cancelled in there has seen nothing
        return self._policy

    async def _members(self, team: str, group: str) -> frozenset[str]:
        if self.groups is None:
            return frozenset()
        try:
            return await self.groups.members(team, group)
        except Unavailable as error:
            log.warning("the members of %s could not be looked up, so it counts as empty: %s", group, error)
            return frozenset()


def read_policy(path: Path) -> Policy:
    """The policy in a file, or `Misconfigured` with the place that is wrong."""
    try:
        return Policy.parse(read_yaml(path, "SIGNALBOX_POLICY_FILE"))
    except Misconfigured as error:
        raise Misconfigured(f"{path}: {error}") from error


def read_yaml(path: Path, variable: str) -> object:
    """A parsed YAML file, or `Misconfigured` naming the setting that points to it."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"{variable}: {path} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{variable}: {path} is not valid YAML: {' '.join(str(error).split())}") from error


def _stamp(path: Path) -> tuple[float, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime, status.st_size
