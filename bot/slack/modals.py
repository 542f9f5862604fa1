"""The forms behind a card's buttons: reject, edit, rerun, details; and what a person entered, as values. Pure.

Inputs are made from the recipe's own parameters, so a form can ask for nothing that a spec does not take, and what is
wrong is said beside the field. The details never leave anything out: they turn pages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bot.cards import Card
from bot.core.errors import SignalboxError
from bot.slack.blocks import plain, section, value
from bot.slack.text import clean, escape
from tools.spec import SpecError, TrainingSpec, bounds, parse_spec

REJECT_VIEW, EDIT_VIEW, RERUN_VIEW, PAGE = "sb_reject_form", "sb_edit_form", "sb_rerun_form", "sb_page"
REASON = "reason"
REASON_LIMIT = 500
HINT_LIMIT = 2000
CHUNK = 2800  # characters of a manifest in one section, with room for its fence
CHUNKS_A_PAGE = 40  # of the 100 blocks that a view may have

View = dict[str, Any]


class FieldErrors(SignalboxError):
    """What is wrong, by the block id of its input."""

    def __init__(self, by_block: Mapping[str, str]) -> None:
        super().__init__("; ".join(by_block.values()))
        self.by_block = dict(by_block)


def reject(card: Card) -> View:
    """Asks why."""
    reason = {
        "type": "plain_text_input",
        "action_id": REASON,
        "multiline": True,
        "max_length": REASON_LIMIT,
        "placeholder": plain("What should be different?"),
    }
    asked = {"type": "input", "block_id": REASON, "label": plain("Why"), "element": reason}
    return _form(card, REJECT_VIEW, f"Reject proposal {card.proposal.number}", "Reject", [asked])


def edit(card: Card) -> View:
    """Every parameter, filled in; sending it makes a new revision."""
    note = section("A change makes a new revision: it is priced anew and its votes are reset.")
    fields = [note, *_fields(card.proposal.offer.spec)]
    return _form(card, EDIT_VIEW, f"Edit proposal {card.proposal.number}", "Save", fields)


def rerun(card: Card) -> View:
    """The same, as a new proposal of whoever sends it."""
    note = section("This makes a new proposal of yours; people decide on it like on any other.")
    return _form(card, RERUN_VIEW, "Rerun with changes", "Propose", [note, *_fields(card.proposal.offer.spec)])


def details(card: Card, page: int = 0) -> View:
    """The whole document that the digest covers, and the digest."""
    text = json.dumps(card.proposal.offer.document(), indent=2, ensure_ascii=False)
    chunks = _chunks(escape(text))
    pages = -(-len(chunks) // CHUNKS_A_PAGE)
    page = min(max(page, 0), pages - 1)
    shown = chunks[page * CHUNKS_A_PAGE : (page + 1) * CHUNKS_A_PAGE]
    blocks = [section(f"SHA-256 of its canonical JSON: `{card.proposal.digest}`")]
    blocks += [section(f"```{chunk}```") for chunk in shown]
    if pages > 1:
        turn = [
            {
                "type": "button",
                "action_id": PAGE,
                "text": plain(f"Page {other + 1} of {pages}"),
                "value": f"{card.proposal.id}:{other}",
            }
            for other in ((page + 1) % pages,)
        ]
        blocks.append({"type": "actions", "elements": turn})
    return {
        "type": "modal",
        "callback_id": "sb_details_form",
        "title": plain(f"Proposal {card.proposal.number}"),
        "close": plain("Close"),
        "blocks": blocks,
    }


def parse_page(text: str) -> tuple[str, int]:
    """Proposal id and page of a page button."""
    proposal_id, _, page = text.partition(":")
    return proposal_id[:64], int(page) if page.isdecimal() and len(page) < 5 else 0


def reason_of(view: Mapping[str, Any]) -> str:
    """The reason that was entered; `FieldErrors` if there is none."""
    reason = clean(_entered(view, REASON) or "").strip()
    if not reason:
        raise FieldErrors({REASON: "Say why, so that the requester knows what to change."})
    return reason[:REASON_LIMIT]


def changes_of(view: Mapping[str, Any], spec: TrainingSpec) -> dict[str, object]:
    """The parameters that differ from `spec`; `FieldErrors` names each that is out of bounds."""
    parameters: dict[str, object] = spec.canonical()
    recipe = str(parameters.pop("recipe"))
    entered = {name: text for name in parameters if (text := _entered(view, name)) is not None}
    wrong: dict[str, str] = {}
    for name, text in entered.items():
        try:
            parse_spec(recipe, {**parameters, name: text})
        except SpecError as error:
            wrong[name] = str(error)[:HINT_LIMIT]
    if wrong:
        raise FieldErrors(wrong)
    after = parse_spec(recipe, {**parameters, **entered}).canonical()
    return {name: after[name] for name in parameters if after[name] != parameters[name]}


def first_input(view: Mapping[str, Any]) -> str:
    """Where to say what concerns the whole form: Slack shows errors beside inputs only."""
    return next((str(block["block_id"]) for block in view.get("blocks", []) if block.get("type") == "input"), REASON)


def _form(card: Card, callback: str, title: str, submit: str, blocks: list[dict[str, Any]]) -> View:
    return {
        "type": "modal",
        "callback_id": callback,
        "private_metadata": value(card.proposal),
        "title": plain(title[:24]),
        "submit": plain(submit),
        "close": plain("Cancel"),
        "blocks": blocks,
    }


def _fields(spec: TrainingSpec) -> list[dict[str, Any]]:
    fields = []
    for name, given in spec.canonical().items():
        if name == "recipe":
            continue
        field = type(spec).model_fields[name]
        low, high = bounds(field)
        allowed = f" From {low:g} to {high:g}." if low is not None and high is not None else ""
        fields.append(
            {
                "type": "input",
                "block_id": name,
                "label": plain(name),
                "hint": plain(f"{field.description or ''}.{allowed}".lstrip(".")),
                "element": {
                    "type": "plain_text_input",
                    "action_id": name,
                    "initial_value": repr(given) if isinstance(given, float) else str(given),
                    "max_length": 200,
                },
            }
        )
    return fields


def _entered(view: Mapping[str, Any], name: str) -> str | None:
    found = view.get("state", {}).get("values", {}).get(name, {}).get(name, {}).get("value")
    return str(found) if found is not None else None


def _chunks(text: str) -> list[str]:
    """Whole lines together up to a section's room; a longer line goes on in the next section."""
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
