"""The forms: what they ask, what they make of an answer, and that the details leave nothing out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bot.slack import blocks, modals
from bot.slack.lint import lint
from tests.slack import states
from tools.spec import CATALOGUE, parse_spec


def answered(form: dict[str, Any], **values: str | None) -> dict[str, Any]:
    """The view as Slack sends it back."""
    inputs = [block for block in form["blocks"] if block["type"] == "input"]
    filled = {block["block_id"]: block["element"].get("initial_value") for block in inputs} | values
    state = {name: {name: {"type": "plain_text_input", "value": value}} for name, value in filled.items()}
    return {**form, "state": {"values": state}}


def test_an_edit_form_sent_as_it_is_changes_nothing() -> None:
    for recipe in CATALOGUE:
        card = states.card(states.proposal(states.offer(recipe)))
        form = modals.edit(card)
        assert not lint(form)
        assert modals.changes_of(answered(form), card.proposal.offer.spec) == {}


def test_changes_are_typed_and_only_what_differs() -> None:
    spec = parse_spec("digits", {})
    form = answered(modals.edit(states.card()), lr="3e-4", epochs="12", batch_size=None)
    assert modals.changes_of(form, spec) == {"lr": 3e-4, "epochs": 12}


def test_every_wrong_field_is_named_beside_itself() -> None:
    spec = parse_spec("digits", {})
    with pytest.raises(modals.FieldErrors) as caught:
        modals.changes_of(answered(modals.edit(states.card()), epochs="500", lr="<!channel>", seed="1"), spec)
    assert set(caught.value.by_block) == {"epochs", "lr"}
    assert "from 1 to 100" in caught.value.by_block["epochs"] and "nearest allowed value is 100" in str(caught.value)


def test_inputs_say_their_bounds() -> None:
    form = modals.edit(states.card())
    hints = {block["block_id"]: block["hint"]["text"] for block in form["blocks"] if block["type"] == "input"}
    assert hints["epochs"] == "Passes over the training data. From 1 to 100."
    assert set(hints) == set(parse_spec("digits", {}).canonical()) - {"recipe"}


@pytest.mark.parametrize("said", ["", "   ", "\u200b\u202e\n", None])
def test_a_rejection_needs_a_reason(said: str | None) -> None:
    form = modals.reject(states.card())
    with pytest.raises(modals.FieldErrors) as caught:
        modals.reason_of(answered(form, reason=said))
    assert list(caught.value.by_block) == [modals.first_input(form)] == [modals.REASON]


def test_a_form_belongs_to_the_revision_that_it_was_opened_on() -> None:
    card = states.card()
    for form in (modals.reject(card), modals.edit(card), modals.rerun(card), modals.details(card)):
        assert blocks.parse_value(form["private_metadata"]) == (card.proposal.id, card.proposal.digest)


@pytest.mark.parametrize("nonsense", ["", ":", "::", "a", "x" * 5000, "a:b:c:d", "\x00:1:\u202e"])
def test_a_value_that_is_nonsense_is_nobodys(nonsense: str) -> None:
    proposal_id, seen = blocks.parse_value(nonsense)
    assert len(proposal_id) <= 64 and len(seen) <= 64
    assert modals.parse_page(nonsense)[1] == 0


def test_the_details_leave_nothing_out() -> None:
    card = states.huge()
    read, pages, page = "", 0, 0
    while True:
        view = modals.details(card, page=page)
        assert not lint(view)
        shown = [block for block in view["blocks"] if block["type"] == "rich_text"]
        read += "\n".join(
            one["elements"][0]["elements"][0]["text"]
            for one in shown
            if one["elements"][0]["type"] == "rich_text_preformatted"
        )
        pages += 1
        turns = {
            one["action_id"]: one for block in view["blocks"] if block["type"] == "actions" for one in block["elements"]
        }
        assert all(modals.PAGE.fullmatch(action) for action in turns)
        assert (modals.PREVIOUS_PAGE in turns) == (page > 0)
        if modals.NEXT_PAGE not in turns:
            break
        proposal_id, page = modals.parse_page(turns[modals.NEXT_PAGE]["value"])
        assert proposal_id == card.proposal.id
        read += "\n"
    assert pages > 1 and json.loads(read) == card.proposal.offer.document()
    assert card.proposal.digest in json.dumps(modals.details(card))
    assert modals.details(card, page=9999) == modals.details(card, page=pages - 1)


def test_the_details_show_a_lookalike_as_its_escape() -> None:
    offer = states.offer()
    card = states.card(states.proposal(replace(offer, manifest={"engine": "loc\u202eal", "name": "dіgits"})))
    shown = json.dumps(modals.details(card), ensure_ascii=False)
    assert "\u202e" not in shown and "\\\\u202e" in shown and "\\\\u0456" in shown
