"""A strict fake of Slack on a loopback port: what Slack refuses, this refuses, so that a green test means something.

    async with SlackServer(rates=None) as slack:                      # SLACK_API_URL = slack.api_url
        asked = await slack.user("U1").mention("C1", "train mnist")   # tokens: slack.bot_token, slack.app_token
        card = await slack.message("C1", containing="Approve")
        await slack.user("U2").click(card, "approve")
        note = await slack.ephemeral("U1", containing="your own")

Start reading at `server.py`. Methods: `chat`, `reading`, `views`, `files`. Judgement: `limits`, `tables`, `elements`,
`rates`. To the app: `delivery`, `socket_mode`, `payloads`. People: `people`. What is remembered: `state`.
"""

from tests.fakes.slack.api import Call, Fault
from tests.fakes.slack.delivery import Answer, Delivery, Signed
from tests.fakes.slack.people import Person, escaped
from tests.fakes.slack.server import SlackServer
from tests.fakes.slack.state import Channel, Message, Refusal, User, View, Workspace

__all__ = [
    "Answer",
    "Call",
    "Channel",
    "Delivery",
    "Fault",
    "Message",
    "Person",
    "Refusal",
    "Signed",
    "SlackServer",
    "User",
    "View",
    "Workspace",
    "escaped",
]
