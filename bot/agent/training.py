"""Reads a training request out of a person's words: which recipes, which parameters, and "same but 5 epochs".

It exists apart from the other meanings because it is the only one that proposes something, so it is the one that must
abstain: what is denied, what is told of the past and what only mentions a recipe makes no call. The earlier request
that a follow-up changes is the thread's last call of the same tools, never a tool's answer.
Next step: `bot.agent.grammar`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from bot.agent import reading, vocabulary
from bot.agent.numbers import value
from bot.agent.reading import Found
from tools.spec import CATALOGUE, SpecError, parse_spec

TRIGGER: Final = "trigger_training_job"
ESTIMATE: Final = "estimate_training_cost"
MOST_AT_ONCE: Final = 5  # trainings from one message; more is likelier a misreading than a wish
_PLAIN_LIST: Final = re.compile(
    r"\W*(?:and|&|\+|plus|,|then|as well as|or)?\W*(?:the|a|on)?\W*", re.IGNORECASE
)  # what stands between recipes that share their parameters
_DISTILGPT2_ONLY: Final = ("model", "dataset", "block_size")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A call of the trigger or of the estimate, as the thread has it: arguments under their parameter names."""

    tool: str
    arguments: dict[str, Any]


@dataclass(kw_only=True)
class Clauses:
    """A message cut where a thought ends: what is asked for, what is denied, what is told."""

    asked: str = ""  # the message with the rest blanked out
    commands: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def clauses(text: str) -> Clauses:
    """The message's clauses by what they are. Blanked text keeps its length, so that places stay."""
    cut, start = Clauses(asked=text), 0
    edges = [*((match.start(), match.end()) for match in vocabulary.BREAK.finditer(text)), (len(text), len(text))]
    for end, following in edges:
        clause = text[start:end]
        positive = vocabulary.WHY_NOT.search(clause) is not None
        negated = vocabulary.NEGATED.search(clause) is not None and not positive
        if negated and not (
            vocabulary.POLITE_NOT.search(clause)
            and not vocabulary.NEGATED.search(vocabulary.POLITE_NOT.sub(" ", clause))
        ):
            cut.denied.append(clause)
            cut.asked = reading.blanked(cut.asked, start, end)
        elif vocabulary.COMMAND.search(clause) or positive or vocabulary.WANTED_DONE.search(clause):
            cut.commands.append(clause)
        elif vocabulary.PAST.search(clause):
            cut.told.append(clause)
            cut.asked = reading.blanked(cut.asked, start, end)
        start = following
    return cut


def asks_advice(text: str) -> bool:
    return vocabulary.ADVICE.search(text) is not None


def wants_later(text: str) -> bool:
    """Whether it should happen at a time or on a condition, which nothing here waits for."""
    return vocabulary.LATER.search(text) is not None


def is_question(text: str) -> bool:
    return vocabulary.ASKING.search(text) is not None and vocabulary.WHAT_ABOUT.search(text) is None


def stated(text: str) -> bool:
    """Whether a text with a recipe and parameters only says something about them."""
    return vocabulary.STATING.search(text) is not None or vocabulary.PAST.search(text) is not None


def denies(cut: Clauses) -> bool:
    """Whether what is denied takes back what is asked: the same recipe, or none that is named."""
    if not cut.denied:
        return False
    asked = {item.value for item in reading.recipes(cut.asked)}
    denied = {item.value for clause in cut.denied for item in reading.recipes(clause)}
    return not asked or not denied or bool(asked & denied)


def retracted(text: str) -> bool:
    """Whether a request ends with its own withdrawal: "train mnist... no, scratch that"."""
    match = vocabulary.RETRACTED.search(text)
    before = text[: match.start()] if match else ""
    named = reading.recipes(before) or reading.parameters(before) or reading.references(before)
    return bool(named) or vocabulary.AGAIN.search(before) is not None


def crossed(text: str) -> bool:
    """Whether one recipe is named on top of another: "a digits classifier on mnist" is one training, but which?"""
    return any(
        left.value != right.value and vocabulary.ON_TOP.fullmatch(text, left.end, right.start)
        for left, right in pairwise(reading.recipes(text))
    )


def named(text: str, earlier: Sequence[Request]) -> list[dict[str, Any]]:
    """The arguments of each training that the text names by its recipe."""
    extra = reading.sources(text)
    bare = text
    for item in extra:
        bare = reading.blanked(bare, item.start, item.end)
    found: list[dict[str, Any]] = []
    for recipe, chunk in _chunks(bare, reading.recipes(bare)):
        base = _base(recipe, bare, earlier)
        for given in _variants(chunk):
            given |= {item.name: item.value for item in extra if recipe == "distilgpt2"}
            found.append({"model_type": recipe, **base, **given, **_multiplied(recipe, base, chunk)})
    return _distinct(found)


def parts(text: str) -> list[str]:
    """The words that speak of each training; all of them where no recipe is named."""
    return [chunk for _, chunk in _chunks(text, reading.recipes(text))] or [text]


def follow_up(text: str, earlier: Sequence[Request]) -> list[dict[str, Any]]:
    """The earlier trainings with what the text changes; nothing when the text speaks of something else."""
    again = vocabulary.AGAIN.search(text) is not None
    change = reading.parameters(text) or reading.factors(text) or reading.sources(text) or reading.relative(text)
    if (
        not earlier
        or reading.recipes(text)
        or not (again or change)
        or (vocabulary.PAST.search(text) and not vocabulary.IRREALIS.search(text))
    ):
        return []
    if _unexplained(text) > (3 if again and change else 1):
        return []
    extra = {item.name: item.value for item in reading.sources(text)}
    found = []
    for request in earlier:
        recipe = str(request.arguments.get("model_type", "mnist"))
        for given in _variants(text):
            kept = {name: value for name, value in request.arguments.items() if name != "model_type"}
            found.append({"model_type": recipe, **kept, **given, **extra, **_multiplied(recipe, kept, text)})
    return _distinct(found)


def repeats(text: str) -> bool:
    """Whether the text asks for an earlier training once more, whichever that was."""
    return vocabulary.AGAIN.search(text) is not None and _unexplained(text) <= 3


def unknown(text: str) -> str | None:
    """The thing that a command names where a recipe should stand: "train a resnet" → "resnet"."""
    for match in vocabulary.OBJECT.finditer(text):
        strong = vocabulary.STRONG.match(match[0]) is not None
        word = match["object"].rstrip(".-/").lower()
        if word in vocabulary.NO_OBJECTS or not (strong or reading.parameters(text)) or reading.parameters(word):
            continue
        return word
    return None


def _base(recipe: str, text: str, earlier: Sequence[Request]) -> dict[str, Any]:
    """What is kept from the earlier request: all of it for "mnist again", what fits for "same but digits"."""
    if not earlier or not vocabulary.AGAIN.search(text) or vocabulary.FRESH.search(text):
        return {}
    before = earlier[-1].arguments
    same = before.get("model_type") == recipe
    if not same and not re.search(r"\bsame\b", text, re.IGNORECASE):
        return {}
    dropped = {"model_type"} | (set() if recipe == "distilgpt2" else set(_DISTILGPT2_ONLY))
    return {name: value for name, value in before.items() if name not in dropped}


def _chunks(text: str, recipes: list[Found]) -> list[tuple[str, str]]:
    """Each recipe with the words that speak of it; a plain list of recipes shares them all."""
    kept: list[Found] = []
    for item in recipes:
        if kept and kept[-1].value == item.value and not _cut_between(text, kept[-1], item):
            continue
        kept.append(item)
    if len(kept) < 2:
        return [(item.value, text) for item in kept if isinstance(item.value, str)]
    gaps = [text[left.end : right.start] for left, right in pairwise(kept)]
    own_line = "\n" in gaps[-1] and reading.parameters(text[kept[-1].end :].split("\n")[0])
    if not own_line and all(_PLAIN_LIST.fullmatch(gap) for gap in gaps):
        return [(str(item.value), text) for item in kept]
    cuts = [0]
    for left, right in pairwise(kept):
        breaks = [match.start() for match in vocabulary.BETWEEN.finditer(text, left.end, right.start)]
        cuts.append(breaks[-1] if breaks else right.start)
    cuts.append(len(text))
    return [(str(item.value), text[start:end]) for item, (start, end) in zip(kept, pairwise(cuts), strict=True)]


def _cut_between(text: str, left: Found, right: Found) -> bool:
    """Whether a recipe named twice is meant twice: each time with parameters of its own."""
    breaks = list(vocabulary.BETWEEN.finditer(text, left.end, right.start))
    if not breaks:
        return False
    before, after = text[: breaks[-1].start()], text[breaks[-1].end() :]
    return bool(reading.parameters(before)) and bool(reading.parameters(after))


def _variants(text: str) -> list[dict[str, Any]]:
    """The parameters of a text; one that has several values ("seeds 1 and 2") gives one set for each."""
    values: dict[str, list[str | float]] = {}
    for item in reading.parameters(text):
        known = values.setdefault(item.name, [])
        if all(value(str(item.value)) != value(str(other)) for other in known):
            known.append(item.value)
    several = [name for name, given in values.items() if len(given) > 1]
    single = {name: given[0] for name, given in values.items()}
    if len(several) != 1:
        return [{name: given[-1] for name, given in values.items()}]
    return [{**single, several[0]: one} for one in values[several[0]]]


def _multiplied(recipe: str, base: dict[str, Any], text: str) -> dict[str, Any]:
    """ "double the epochs" of what was asked for before, or of the recipe's default."""
    changed: dict[str, Any] = {}
    for name, factor in reading.factors(text):
        try:
            spec = parse_spec(
                recipe, {key: value for key, value in base.items() if key in {"epochs", "lr", "batch_size"}}
            )
        except SpecError:
            continue
        value = float(getattr(spec, name)) * factor
        changed[name] = value if name == "lr" else round(value)
    return changed


def _unexplained(text: str) -> int:
    """How many words of the text neither a parameter nor a follow-up accounts for."""
    rest = text
    for item in [*reading.parameters(text), *reading.sources(text)]:
        rest = reading.blanked(rest, item.start, item.end)
    if change := reading.relative(text):
        rest = rest.replace(change, " ")
    words = re.findall(r"[a-z][a-z']+", vocabulary.AGAIN.sub(" ", rest).lower())
    return sum(word not in vocabulary.COMMON and not reading.factors(f"{word} the epochs") for word in words)


def _distinct(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    unique = [item for index, item in enumerate(found) if item not in found[:index]]
    return unique[:MOST_AT_ONCE]


def catalogue() -> str:
    """The recipes, one a line, for help."""
    return "\n".join(f"• {name}: {recipe.summary}" for name, recipe in CATALOGUE.items())
