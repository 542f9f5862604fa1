"""Who is in a Slack user group: looked up for decisions, remembered for a minute, never guessed."""

from __future__ import annotations

import time

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.core.errors import Unavailable

REMEMBERED_SECONDS = 60.0  # someone who is removed loses the right within that time


class SlackGroups:
    """Implements `bot.policies.Groups`."""

    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client
        self._known: dict[str, tuple[float, frozenset[str]]] = {}

    async def members(self, team: str, group: str) -> frozenset[str]:
        """The group's users now, or a minute ago."""
        at, members = self._known.get(group, (-REMEMBERED_SECONDS, frozenset[str]()))
        if time.monotonic() - at < REMEMBERED_SECONDS:
            return members
        try:
            answer = await self._client.usergroups_users_list(usergroup=group, team_id=team)
        except SlackApiError as error:
            raise Unavailable(f"Slack does not tell who is in {group} ({error.response.get('error')}).") from error
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"Slack does not answer ({type(error).__name__}).") from error
        found = frozenset(str(user) for user in answer["users"])
        self._known[group] = (time.monotonic(), found)
        return found
