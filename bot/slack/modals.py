"""The forms behind a card's buttons: reject, edit, rerun, details; and what a person entered, as values. Pure.

Inputs are made from the recipe's own parameters, so a form can ask for nothing that a spec does not take, and what is
wrong is said beside the field. The details never leave anything out: they turn pages. Cancelling asks back in the
button's own dialog (`bot.slack.blocks`). Next step of a form that was sent: `bot.slack.hands`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from bot.cards import Card
from bot.core.errors import SignalboxError
from bot.slack import limits
from bot.slack.blocks import value
from bot.slack.elements import Block, context, plain, preformatted, quote, section, span
from bot.slack.text import clean, code
from tools.spec import SpecError, TrainingSpec, bounds, is_whole, parse_spec

REJECT_VIEW, EDIT_VIEW, RERUN_VIEW, DETAILS_VIEW = "sb_reject_form", "sb_edit_form", "sb_rerun_form", "sb_details_form"
PREVIOUS_PAGE, NEXT_PAGE = "sb_page_previous", "sb_page_next"
PAGE = re.compile(r"sb_page_(?:previous|next)")
REASON = "reason"

REASON_LIMIT = 500  # characters that are kept with a decision
TEXT_LIMIT = 200  # of a hub id
ERROR_LIMIT = 2000  # of a sentence beside an input
CHUNK = 3000  # characters of the manifest in one block
CHUNKS_A_PAGE = 40  # of the 100 blocks that a view may have; well below 250,000 bytes

View = dict[str, Any]


class FieldErrors(SignalboxError):
    """What is wrong, by the block id of its input."""

    def __init__(self, by_block: Mapping[str, str]) -> None:
        super().__init__("; ".join(by_block.values()))
        self.by_block = {block: sentence[:ERROR_LIMIT] for block, sentence in by_block.items()}


def reject(card: Card) -> View:
    """Asks why; the requester reads it."""
    element = {
        "type": "plain_text_input",
        "action_id": REASON,
        "multiline": True,
        "max_length": REASON_LIMIT,
        "focus_on_load": True,
        "placeholder": plain("What should be different?"),
    }
    label, hint = plain("Why"), plain("The requester reads this on the card.")
    asked = {"type": "input", "block_id": REASON, "label": label, "hint": hint, "element": element}
    return _form(card, REJECT_VIEW, "Reject", "Reject", [_what(card), asked])


def edit(card: Card) -> View:
    """Every parameter, filled in; sending it makes a new revision."""
    note = section("A change makes a new revision: it is priced anew and its votes are reset.")
    return _form(card, EDIT_VIEW, "Edit", "Save", [_what(card), note, *_inputs(card.proposal.offer.spec)])


def rerun(card: Card) -> View:
    """The same parameters, to be changed or not, as a new proposal of whoever sends it."""
    note = section("This makes a new proposal of yours; people decide on it as on any other.")
    return _form(
        card, RERUN_VIEW, "Rerun with changes", "Propose", [_what(card), note, *_inputs(card.proposal.offer.spec)]
    )


def details(card: Card, page: int = 0) -> View:
    """The whole document that the digest covers, the digest, and the requester's whole words, page by page.

    ASCII JSON: a character that looks like another, or turns the line around, shows as its `\\u` escape.
    """
    proposal = card.proposal
    chunks = _chunks(json.dumps(proposal.offer.document(), indent=2, ensure_ascii=True))
    pages = -(-len(chunks) // CHUNKS_A_PAGE)
    page = min(max(page, 0), pages - 1)
    blocks = [section(f"SHA-256 of its canonical JSON:\n{code(proposal.digest)}")]
    blocks += [preformatted(chunk) for chunk in chunks[page * CHUNKS_A_PAGE : (page + 1) * CHUNKS_A_PAGE]]
    if page == pages - 1:
        blocks.append(quote([span("The words it was asked for with:")], proposal.prompt, limits.SECTION_TEXT))
    if pages > 1:
        blocks += [context(f"Page {page + 1} of {pages}"), _pages(proposal.id, page, pages)]
    return {
        "type": "modal",
        "callback_id": DETAILS_VIEW,
        "private_metadata": value(proposal),
        "title": plain(f"Proposal {proposal.number}", limits.VIEW_TITLE),
        "close": plain("Close"),
        "blocks": blocks,
    }


def parse_page(text: str) -> tuple[str, int]:
    """Proposal id and page of a page button."""
    proposal_id, _, page = text.partition(":")
    return proposal_id[:64], int(page) if page.isascii() and page.isdecimal() and len(page) < 5 else 0


def reason_of(view: Mapping[str, Any]) -> str:
    """The reason that was entered; `FieldErrors` if there is none."""
    reason = clean(_entered(view, REASON) or "").strip()
    if not reason:
        raise FieldErrors({REASON: "Say why, so that the requester knows what to change."})
    return reason[:REASON_LIMIT]


def changes_of(view: Mapping[str, Any], spec: TrainingSpec) -> dict[str, object]:
    """The parameters that differ from `spec`; `FieldErrors` names each that no recipe takes, beside its input."""
    parameters: dict[str, object] = spec.canonical()
    recipe = str(parameters.pop("recipe"))
    entered = {name: text for name in parameters if (text := _entered(view, name)) is not None}
    wrong: dict[str, str] = {}
    for name, text in entered.items():
        try:
            parse_spec(recipe, {**parameters, name: text})
        except SpecError as error:
            wrong[name] = str(error)
    if wrong:
        raise FieldErrors(wrong)
    after = parse_spec(recipe, {**parameters, **entered}).canonical()
    return {name: after[name] for name in parameters if after[name] != parameters[name]}


def first_input(view: Mapping[str, Any]) -> str:
    """Where to say what concerns the whole form: Slack shows errors beside inputs only."""
    return next((str(block["block_id"]) for block in view.get("blocks", []) if block.get("type") == "input"), REASON)


def _form(card: Card, callback: str, title: str, submit: str, blocks: list[Block]) -> View:
    return {
        "type": "modal",
        "callback_id": callback,
        "private_metadata": value(card.proposal),
        "title": plain(title, limits.VIEW_TITLE),
        "submit": plain(submit),
        "close": plain("Back"),
        "blocks": blocks,
    }


def _what(card: Card) -> Block:
    """Which proposal this form is about."""
    proposal = card.proposal
    recipe = proposal.offer.spec.recipe
    return context(
        f"Proposal {proposal.number} · {recipe} · revision {proposal.revision} · {code(proposal.short_digest)}"
    )


def _inputs(spec: TrainingSpec) -> list[Block]:
    return [_input(spec, name, given) for name, given in spec.canonical().items() if name != "recipe"]


def _input(spec: TrainingSpec, name: str, given: object) -> Block:
    """One parameter. Bounds are in the hint only: what is out of them gets our sentence with the nearest value."""
    field = type(spec).model_fields[name]
    low, high = bounds(field)
    allowed = "" if low is None or high is None else f" From {low:,.10g} to {high:,.10g}."
    element: Block = {"action_id": name, "initial_value": _written(given)}
    if is_whole(field):
        element |= {"type": "number_input", "is_decimal_allowed": False}
    else:  # a learning rate is written as 3e-4, which a number input does not take
        element |= {"type": "plain_text_input", "max_length": TEXT_LIMIT}
    hint = plain(f"{(field.description or name).capitalize()}.{allowed}", limits.INPUT_HINT)
    return {"type": "input", "block_id": name, "label": plain(name), "hint": hint, "element": element}


def _written(given: object) -> str:
    return f"{given!r}" if isinstance(given, float) else str(given)


def _entered(view: Mapping[str, Any], name: str) -> str | None:
    found = view.get("state", {}).get("values", {}).get(name, {}).get(name, {}).get("value")
    return str(found) if found is not None else None


def _pages(proposal_id: str, page: int, pages: int) -> Block:
    turns = [(PREVIOUS_PAGE, "Previous", page - 1), (NEXT_PAGE, "Next", page + 1)]
    buttons = [
        {"type": "button", "action_id": action, "text": plain(text), "value": f"{proposal_id}:{other}"}
        for action, text, other in turns
        if 0 <= other < pages
    ]
    return {"type": "actions", "block_id": "pages", "elements": buttons}


def _chunks(text: str) -> list[str]:
    """Whole lines together up to a block's room; a longer line goes on in the next block."""
    chunks: list[str] = []
    current = ""
    for line in text.split("\n"):
        for part in [line[start : start + CHUNK] for start in range(0, max(len(line), 1), CHUNK)]:
            if current and len(current) + len(part) + 1 > CHUNK:
                chunks.append(current)
                current = part
            else:
                current = f"{current}\n{part}" if current else part
    return [*chunks, current]
