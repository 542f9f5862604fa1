"""What `doctor` asks of Slack: do the tokens work, which scopes are missing, is the digest's channel there."""

from __future__ import annotations

from collections.abc import AsyncIterator

from slack_sdk.errors import SlackApiError

from bot.settings import Settings
from bot.slack.connection import web_client

NEEDED = frozenset(
    {
        "app_mentions:read",
        "assistant:write",
        "channels:history",
        "chat:write",
        "commands",
        "files:write",
        "groups:history",
        "im:history",
        "im:write",
        "users:read",
    }
)


async def problems(settings: Settings) -> AsyncIterator[str]:
    """Each thing that is wrong, with what to do; nothing if all is well. Network errors are the caller's."""
    assert settings.slack_bot_token is not None
    client = web_client(settings.slack_bot_token.get_secret_value(), settings.slack_api_url)
    try:
        answer = await client.auth_test()
    except SlackApiError as error:
        yield f"SLACK_BOT_TOKEN is refused ({error.response.get('error')}). Copy it again from the app's page."
        return
    headers = {name.lower(): str(given) for name, given in answer.headers.items()}
    granted = headers.get("x-oauth-scopes", "").replace(" ", "")
    missing = NEEDED - set(granted.split(",")) if granted else frozenset[str]()
    if missing:
        yield f"The app lacks the scopes {', '.join(sorted(missing))}. Add them and install it again."
    if settings.slack_mode == "socket":
        async for problem in _socket_problems(settings):
            yield problem
    elif settings.slack_signing_secret is None:
        yield "SLACK_SIGNING_SECRET is not set; requests over HTTP cannot be trusted without it."
    if settings.digest_channel:
        try:
            found = await client.conversations_info(channel=settings.digest_channel)
            if not found["channel"].get("is_member"):
                yield f"The bot is not in {settings.digest_channel}, which shall get the digest. Invite it there."
        except SlackApiError as error:
            if error.response.get("error") != "missing_scope":  # channels:read is optional
                yield f"SIGNALBOX_DIGEST_CHANNEL: {settings.digest_channel}: {error.response.get('error')}."


async def _socket_problems(settings: Settings) -> AsyncIterator[str]:
    if settings.slack_app_token is None:
        yield "SLACK_APP_TOKEN is not set; sockets need it (or set SIGNALBOX_SLACK_MODE=http)."
        return
    token = settings.slack_app_token.get_secret_value()
    try:
        await web_client(token, settings.slack_api_url).apps_connections_open(app_token=token)
    except SlackApiError as error:
        yield f"SLACK_APP_TOKEN is refused ({error.response.get('error')}). It needs connections:write."
