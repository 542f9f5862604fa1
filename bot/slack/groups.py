"""Who is in a Slack user group: looked up for decisions, remembered for a minute, never guessed."""

from __future__ import annotations

import asyncio
import time

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.core.errors import Unavailable
from bot.slack.connection import NO_ANSWER

LOOK_UP_SECONDS = 1.0  # a click waits for this, and Slack waits three seconds for a click
FAILED_SECONDS = 10.0  # until a look-up that failed is tried again
REMEMBERED_SECONDS = 60.0  # someone who is removed loses the right within that time


class SlackGroups:
    """Implements `bot.policies.Groups`."""

    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client
        self._known: dict[str, tuple[float, frozenset[str]]] = {}
        self._failed: dict[str, float] = {}

    async def members(self, team: str, group: str) -> frozenset[str]:
        """The group's users now, or a minute ago."""
        at, members = self._known.get(group, (-REMEMBERED_SECONDS, frozenset[str]()))
        if time.monotonic() - at < REMEMBERED_SECONDS:
            return members
        if time.monotonic() - self._failed.get(group, -FAILED_SECONDS) < FAILED_SECONDS:
            raise Unavailable(f"Slack did not tell just now who is in {group}.")
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                answer = await self._client.usergroups_users_list(usergroup=group, team_id=team)
        except SlackApiError as error:
            self._failed[group] = time.monotonic()
            raise Unavailable(f"Slack does not tell who is in {group} ({error.response.get('error')}).") from error
        except NO_ANSWER as error:
            self._failed[group] = time.monotonic()
            raise Unavailable(f"Slack does not answer ({type(error).__name__}).") from error
        found = frozenset(str(user) for user in answer["users"])
        self._known[group] = (time.monotonic(), found)
        return found
