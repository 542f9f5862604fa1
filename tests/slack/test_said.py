"""What a card says in each state, word for word where a decision hangs on it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bot import wording
from bot.cards import Card
from bot.slack import blocks, said
from bot.slack.lint import lint
from tests.fakes.slack.limits import message_complaints
from tests.slack import states
from tests.slack.states import ANN, BOB, CLEO

STATES = states.states()
DECIDE = {blocks.APPROVE, blocks.REJECT, blocks.EDIT}
PRESSED: dict[str, set[str]] = {
    "pending": DECIDE,
    "pending_revised": DECIDE,
    "pending_one_vote_of_two": DECIDE,
    "time_is_over": set(),
    "rejected": set(),
    "withdrawn": set(),
    "expired": set(),
    "approved_queued": {blocks.CANCEL},
    "running": {blocks.CANCEL},
    "cancelling": set(),
    "succeeded": {blocks.RERUN, blocks.COMPARE},
    "failed": {blocks.RERUN},
    "cancelled": {blocks.RERUN},
}
SAYS = {
    "pending": ["*Approvals* 0 of 1; 1 still needed", f"*May approve* <@{ANN}>, <@{BOB}>, <@{CLEO}>"],
    "pending_without_history": ["no history yet; after 5 finished runs alike it is forecast"],
    "pending_revised": [f"*Revision 2* by <@{BOB}>: lr 0.001 → 0.0003, max_runtime_minutes 15 → 30"],
    "pending_one_vote_of_two": [f"*Approvals* 1 of 2 (<@{ANN}>); 1 still needed", f"*May approve* <@{BOB}>, <@{CLEO}>"],
    "pending_nobody_may": ["The policy lets nobody approve this"],
    "pending_vote_not_counted": ["0 of 2; 2 still needed", f"*Not counted* <@{ANN}>: no longer an approver"],
    "pending_budget_short": ["$0.01 left of $10.00 this month; not enough for this ceiling"],
    "unpriced": ["not known: rates r0 have none for CPU core; stopped after 15 min"],
    "rejected": [f"*Rejected by* <@{ANN}>", "two epochs would show it"],
    "withdrawn": [f"*Withdrawn by* <@{states.RAE}>"],
    "expired": ["Nobody decided in time"],
    "approved_queued": [f"*Approved by* <@{ANN}>", "2 jobs ahead of it"],
    "starting_with_trouble": ["does not answer", "tried again"],
    "running": ["*Progress* `█████████░░░░░░░░░░░` 44%, epoch 4/8", "5.2 s left"],
    "cancelling": [f"*Being cancelled by* <@{states.RAE}>"],
    "succeeded": ["*Metrics* val_accuracy 97.78%", "(within P90)", "Accuracy by epoch"],
    "succeeded_long_on_gpu": ["Loss by epoch (20 of 60 epochs)", "namespace `training`", "*Image* `registry"],
    "failed": ["Out of memory", "*Next* *Rerun with changes*"],
    "cancelled": [f"*Cancelled by* <@{states.RAE}>"],
    "hostile_prompt": ["more characters)"],
}


def rendered(card: Card) -> tuple[dict[str, Any], str, set[str]]:
    message = blocks.card(card)
    pressed = {
        one["action_id"] for block in message["blocks"] if block["type"] == "actions" for one in block["elements"]
    }
    return message, json.dumps(message, ensure_ascii=False), pressed


@pytest.mark.parametrize("name", STATES)
def test_every_state_is_whole_and_taken_by_both_linters(name: str) -> None:
    card = STATES[name]
    message, shown, _ = rendered(card)
    assert not lint(message) and not message_complaints(message["blocks"])
    assert message["blocks"][0]["block_id"] == blocks.mark(card.proposal)
    assert f"*Runs* {wording.parameters(card.proposal.offer.spec)}" in shown, "every parameter"
    assert card.proposal.short_digest in shown
    assert message["metadata"]["event_payload"] == {"proposal": card.proposal.id, "revision": card.proposal.revision}


@pytest.mark.parametrize("name", SAYS)
def test_it_says(name: str) -> None:
    shown = rendered(STATES[name])[1]
    for words in SAYS[name]:
        assert words in shown, words


@pytest.mark.parametrize("name", PRESSED)
def test_only_what_can_be_pressed_is_there_and_the_details_always(name: str) -> None:
    assert rendered(STATES[name])[2] == PRESSED[name] | {blocks.DETAILS}


def test_a_button_carries_the_revision_and_the_full_digest_of_its_card() -> None:
    proposal = STATES["pending_revised"].proposal
    assert blocks.value(proposal) == f"{proposal.id}:2:{proposal.digest}"
    assert blocks.parse_value(blocks.value(proposal)) == (proposal.id, proposal.digest)


def test_a_long_command_says_how_much_of_it_is_not_shown() -> None:
    long = states.offer("distilgpt2", dataset="owner/" + "d" * 190, model="owner/" + "m" * 190)
    shown = "\n".join(said.program(long))
    command = " ".join(long.manifest["command"])
    assert f"and {len(command) - said.COMMAND_SHOWN} more characters: see Details" in shown
    assert "d" * 190 in shown and "m" * 190 in shown, "the parameters are whole all the same"


def test_many_approvers_are_counted_rather_than_cut() -> None:
    crowd = tuple(f"U0{index:04}" for index in range(300))
    shown = rendered(states.card(able=crowd, needed=2))[1]
    assert "<@U00019> and 280 more" in shown


def test_names_of_a_terminal_are_not_mentions() -> None:
    message, shown, _ = rendered(states.card(states.proposal(requester="rae <!here>", author="rae"), able=("ann",)))
    assert not lint(message) and "*May approve* ann" in shown and "<!here>" not in shown
