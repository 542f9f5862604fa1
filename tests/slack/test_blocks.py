"""What the bot sends is what the golden files say, both linters take it, and nobody's words break out of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.core.proposal import ProposalState
from bot.slack import blocks, charts, home, limits, modals, text
from bot.slack.lint import lint_message, lint_view
from tests.fakes.slack.limits import message_complaints, view_complaints
from tests.slack import golden, pictures
from tests.slack.golden import ANN, GALLERY, GOLDEN, HOSTILE, PICTURES, POLICY, RAE, Json

PAYLOADS = golden.payloads()
NAMES = sorted(PAYLOADS)
OURS = {RAE, ANN, golden.BOB, golden.CLEO}
AGAIN = "run `python -m tests.slack.golden` and look at what has changed"

PIECES = st.sampled_from(
    [
        "<!channel>", "<!here|x>", "<@U0EVIL>", "<@U0EVIL|Ann>", "<#C0EVIL>", "<!subteam^S0EVIL>", "@here", "@channel",
        "<https://evil.example|Approve>", "https://evil.example", "[x](https://evil.example)", "![x](http://evil)",
        "&lt;!channel&gt;", "&amp;lt;!here&amp;gt;", "<<!channel>>", "<", ">", "&", "<!", "<@", "|", "`", "```", "~~~",
        "*", "_", "~", ":tada:", "\n", "\r\n", "\u2028", "\u202e", "\u2066", "\u200b", "\x00", "\ud800", "\n```\n",
        "<!date^1^{date}|x>", "<!chan\u200bnel>", "<\u202e!here>", "@\u200bhere", "word", "x" * 700,
        "# ", "> ", "| a |",
    ]
)  # fmt: skip
WORDS = st.one_of(
    st.lists(PIECES, max_size=60).map("".join),
    st.lists(PIECES, max_size=60).map(" ".join),
    st.text(max_size=4000),
    st.lists(PIECES, min_size=1, max_size=8).map(lambda some: ("".join(some) * 2000)[:10_000]),
)
THOROUGH = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def faults(payload: Json) -> list[str]:
    """What either linter says."""
    if "type" in payload:
        return [*lint_view(payload), *view_complaints(payload)]
    return [*lint_message(payload), *message_complaints(payload["blocks"])]


def marked(node: Any) -> list[str]:
    """Every text that Slack reads as markup."""
    if isinstance(node, list):
        return [one for inner in node for one in marked(inner)]
    if not isinstance(node, dict):
        return []
    own = [node["text"]] if node.get("type") in ("mrkdwn", "markdown") else []
    own += [node["text"]] if "blocks" in node and isinstance(node.get("text"), str) else []
    return own + [one for inner in node.values() for one in marked(inner)]


def mentions(payload: Json) -> set[str]:
    """What the payload mentions, in markup and in rich text."""
    found = {tag for said in marked(payload) for tag in re.findall(r"<([@!#][^>|^]*)", said)}
    users = set(re.findall(r'"user_id": "([^"]*)"', json.dumps(payload)))
    return (found | {f"@{user}" for user in users}) - {"!date"}


def allowed(payload: Json) -> None:
    """Only people that we name ourselves, and our own channel."""
    assert mentions(payload) <= {f"@{user}" for user in OURS} | {f"#{golden.CHANNEL}"}, mentions(payload)
    for said in marked(payload):
        assert not re.search(r"@(?:here|channel|everyone)\b", said)
        assert "<http" not in said and "evil.example|" not in said
    shown = json.dumps(payload, ensure_ascii=False)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\x00]", shown)


# -- golden -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_as_the_golden_file(name: str) -> None:
    assert json.loads((GOLDEN / f"{name}.json").read_text()) == PAYLOADS[name], AGAIN


def test_no_golden_file_is_left_over_and_the_gallery_is_of_today() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(NAMES), AGAIN
    assert GALLERY.read_text() == golden.gallery(), AGAIN


def test_the_pictures_in_the_guide_are_of_today() -> None:
    kept = {path.name: path.read_text() for path in PICTURES.iterdir()}
    assert kept == pictures.drawn(PAYLOADS), AGAIN


@pytest.mark.parametrize("name", sorted(pictures.PICTURES))
def test_the_guide_has_each_picture_with_a_legend_of_its_numbers(name: str) -> None:
    guide = (PICTURES.parent / "slack.md").read_text()
    legend = guide.split(f"](pictures/{name}.svg)")[1].split("\n#")[0].split("![")[0]
    assert re.findall(r"^(\d+)\. \*\*(.+?)\*\*:", legend, re.MULTILINE) == [
        (str(number), mark) for number, mark in enumerate(pictures.PICTURES[name].marks, 1)
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("card", "modal", "digest"))])
def test_nothing_in_a_payload_breaks_out_of_a_picture(name: str) -> None:
    payload = PAYLOADS[name]
    surface = pictures.dialog if payload.get("type") == "modal" else pictures.message
    drawn = surface(payload, pictures.Picture(name, "Any <title> & more", ()))
    assert {element.tag.split("}")[1] for element in ElementTree.fromstring(drawn).iter()} <= {
        "svg", "title", "text", "tspan", "rect", "line", "circle", "polygon", "polyline"
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_both_linters_take_it(name: str) -> None:
    assert faults(PAYLOADS[name]) == []


@pytest.mark.parametrize("name", NAMES)
def test_without_charts_too(name: str) -> None:
    """A Slack that knows no charts gets the same as text."""
    if "type" not in PAYLOADS[name]:
        plainer = charts.plainer(PAYLOADS[name])
        assert faults(plainer) == []
        assert not {"data_visualization", "data_table"} & {block["type"] for block in plainer["blocks"]}


@pytest.mark.parametrize("name", NAMES)
def test_it_mentions_nobody_but_those_concerned(name: str) -> None:
    allowed(PAYLOADS[name])


BUTTONS = {
    "pending": "Approve Reject Edit Details",
    "revised": "Approve Reject Edit Details",
    "one-of-two": "Approve Reject Edit Details",
    "queued": "Cancel Details",
    "running": "Cancel Details",
    "cancelling": "Details",
    "cancelled": "Rerun with changes|Details",
    "failed": "Rerun with changes|Details",
    "succeeded": "Rerun with changes|Compare|Details",
    "rejected": "Details",
    "withdrawn": "Details",
    "expired": "Details",
}


@pytest.mark.parametrize("state", BUTTONS)
def test_only_what_can_be_pressed_is_a_button(state: str) -> None:
    last = PAYLOADS[f"card-{state}"]["blocks"][-1]
    shown = [one["text"]["text"] for one in last["elements"]] if last["type"] == "actions" else []
    expected = BUTTONS[state]
    assert shown == expected.split("|" if "|" in expected else " ")


def test_an_approval_button_is_gone_the_moment_the_time_is_over() -> None:
    card = golden.made().cards["pending"]
    late = blocks.card(replace(card, now=card.proposal.expires_at))
    assert blocks.APPROVE not in json.dumps(late)


def test_a_finished_card_has_its_curve_and_a_running_one_has_none() -> None:
    def shown(name: str) -> list[Json]:
        return [block for block in PAYLOADS[name]["blocks"] if block["type"] == "data_visualization"]

    assert shown("card-succeeded") and not shown("card-running")
    long = shown("card-succeeded-long")[0]["chart"]["axis_config"]["categories"]
    assert len(long) <= limits.CHART_POINTS and (long[0], long[-1]) == ("1", "57")


def test_a_button_carries_the_proposal_and_its_whole_digest() -> None:
    proposal = golden.made().cards["revised"].proposal
    assert blocks.parse_value(blocks.value(proposal)) == (proposal.id, proposal.digest)
    assert blocks.parse_value("nonsense" * 100)[0] != proposal.id


# -- pages of a long manifest -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("lines", [0, 30, 700, 2000, 6000])
def test_the_details_leave_nothing_out(lines: int) -> None:
    card = golden.long_manifest(golden.made().cards["pending"], lines)
    first = modals.details(card)
    pages = int(found[1]) if (found := re.search(r"Page 1 of (\d+)", json.dumps(first))) else 1
    assert pages > 1 or lines < 2000
    views = [modals.details(card, page) for page in range(pages)]
    assert [fault for view in views for fault in faults(view)] == []
    chunks = [
        "".join(span["text"] for span in part["elements"])
        for view in views
        for block in view["blocks"]
        if block["type"] == "rich_text"
        for part in block["elements"]
        if part["type"] == "rich_text_preformatted"
    ]
    whole = re.sub(r"\s", "", "".join(chunks))
    assert whole == re.sub(r"\s", "", json.dumps(card.proposal.offer.document(), indent=2, ensure_ascii=True))
    assert modals.details(card, 10**6) == views[-1] and modals.details(card, -1) == views[0]


# -- hostile words ----------------------------------------------------------------------------------------------------
@THOROUGH
@given(words=WORDS, reason=WORDS, trouble=WORDS)
def test_words_of_people_and_logs_never_break_a_card(words: str, reason: str, trouble: str) -> None:
    cards = golden.made().cards
    for state in ("pending", "rejected", "running-in-trouble", "failed", "cancelled"):
        card = cards[state]
        said = replace(card, proposal=replace(card.proposal, prompt=words, reason=reason[:500]), trouble=trouble)
        if said.job is not None:
            said = replace(said, job=replace(said.job, reason=reason))
        payload = blocks.card(said)
        assert faults(payload) == []
        allowed(payload)
        view = modals.details(said)
        assert faults(view) == []
        page = home.view(user=ANN, pending=[said], jobs=[said], policy=POLICY, spend=f"Spend: {reason}")
        assert faults(page) == []
        allowed(page)


@THOROUGH
@given(words=WORDS)
def test_answers_of_the_model_never_break_a_message(words: str) -> None:
    for payload in golden.answer(words):
        assert faults(payload) == []
        said = payload["blocks"][0]["text"]
        assert not re.search(r"<[@!#]", said) and not re.search(r"@(?:here|channel|everyone)\b", said)


@THOROUGH
@given(words=WORDS)
def test_escaped_words_hold_no_tag(words: str) -> None:
    said = text.escape(words)
    assert not re.search(r"[<>]", said)
    assert not re.search(r"&(?!amp;|lt;|gt;)", said)
    assert not re.search(r"<[@!#]", text.literal(words)), "plain text may be copied into a message"


@THOROUGH
@given(words=WORDS, limit=st.integers(200, 12_000))
def test_parts_are_never_too_long_nor_leave_a_fence_open(words: str, limit: int) -> None:
    for part in text.split(text.from_model(words), limit):
        assert 0 < len(part) <= limit


@THOROUGH
@given(words=WORDS, limit=st.integers(60, 4000))
def test_what_is_shortened_says_so(words: str, limit: int) -> None:
    short = text.shortened(words, limit)
    assert len(short) <= limit and "\n" not in short
    assert short == " ".join(words.split()) or "more characters" in short


def test_a_prompt_of_10_000_characters_says_that_there_is_more() -> None:
    assert len(HOSTILE) == 10_000
    card = golden.made().cards["hostile-prompt"]
    assert HOSTILE.startswith(card.proposal.prompt[:1000]) and card.proposal.state is ProposalState.PENDING
    assert "more characters" in json.dumps(PAYLOADS["card-hostile-prompt"])
