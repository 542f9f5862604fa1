"""What of a request was not read exactly, as the sentence that asks back.

It exists because people approve money on what was read: a number, a bound or a word that would have changed the
training must not fall under the table. Each doubt is a function from the text to a sentence, or to none; the first
that has one is told. Next step: `bot.agent.grammar` asks here before it makes a training's call.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import pairwise
from typing import Final

from bot.agent import reading, sayings, training, vocabulary
from bot.agent.numbers import NUMBER, WORDS, value
from bot.agent.reading import ABOVE, ANY_NAME, BELOW, FACTORS, NAMES, TOKEN, UPPER, Found, blanked

# What may not be left over where a training is proposed: it would have changed it.
_NUMERIC: Final = re.compile(
    r"[\d%^]|\b(?:"
    + "|".join(sorted({*WORDS, *FACTORS} - {"one", "single", "couple", "halve"}, key=len, reverse=True))
    + r"|thirds?|quarters?|tenths?|hundredths?|hundreds|thousand(?:s|ths?)|millions|billions?|percent)\b",
    re.IGNORECASE,
)
# Names, mentions and addresses may have digits of their own ("JIRA-12"); "lr1e-3" and "x10" are numbers.
_OWN_DIGITS: Final = re.compile(
    rf"<[@#!]\S*>|\S+://\S+|(?<![\w.-])(?!(?:x|{'|'.join(NAMES.values())})[\d.])[a-z][a-z_-]*\d[\w-]*", re.IGNORECASE
)
_COUNT: Final = re.compile(rf"\b(?P<count>{NUMBER})\s+(?:runs?|trainings?|jobs?|times)\b|\btwice\b", re.IGNORECASE)

_BOUND: Final = re.compile(
    rf"(?:(?:(?<![\w'])|(?=[<>]))(?:{BELOW}|{ABOVE})[\s:=]*(?:an?\s+)?(?:(?:{ANY_NAME})[\s:=]*(?:of\s+)?)?|(?<![\w'])over\s+){NUMBER}"
    rf"(?:[\s-]*(?:{ANY_NAME}|[dhm](?![a-z])|days?|hours?|hrs?|min(?:ute)?s?)(?![a-z]))?"
    rf"|(?<![\w.-]){NUMBER}[\s-]*(?:(?:{ANY_NAME})\s+)?"
    r"(?:or\s+(?:more|higher|longer|above)|and\s+(?:up|more|above)|minimum|at\s+(?:the\s+)?(?:very\s+)?least)\b",
    re.IGNORECASE,
)
_RANGE: Final = re.compile(rf"(?:{ANY_NAME}|seeds?)\s+(?P<range>from\s+{NUMBER}\s+to\s+{NUMBER})", re.IGNORECASE)
_ONE_OR: Final = re.compile(rf"\bone\s+(?:or|to)\s+{NUMBER}", re.IGNORECASE)  # "one" alone may be a thing
_CHANGES: Final = re.compile(
    r"\b(?:raise|increase|change|bump|lower|reduce|decrease|switch|set|go|move)\b", re.IGNORECASE
)
_THOUSANDS: Final = re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+")
_VALUES_COUNTED: Final = re.compile(rf"{NUMBER}.*(?:seeds|rates|lrs|sizes|batches)", re.IGNORECASE | re.DOTALL)
_ONE_EACH: Final = frozenset({"gpus", "nodes", "memory_gib", "max_runtime_minutes"})  # never several, one a training
_CORRECTS: Final = re.compile(
    r"\b(?:no|not|wait|actually|sorry|rather|oops|or|i mean|make (?:it|that))\b", re.IGNORECASE
)
_JOINS: Final = re.compile(r"&|\b(?:and|then|plus)\b", re.IGNORECASE)
_LED: Final = re.compile(r"[,:]")  # "with lr 0.1, train mnist and …"
_SHARED: Final = re.compile(r"\b(?:each|both|respectively)\b", re.IGNORECASE)
_SOME_GPUS: Final = re.compile(
    r"\b(?:all|many|several|multiple|multi|both|some|few|more|every)[\s-]+(?:of\s+)?(?:the\s+)?gpus?\b"
    r"|(?<!no )(?<!without )(?<!any )\bgpus\b"
    r"(?!\s*[:=]?\s*(?:on|off|yes|no|true|false|none|enabled|disabled)\b)",
    re.IGNORECASE,
)
_NEEDS_VALUE: Final = frozenset({"epochs", "lr", "batch_size", "block_size", "seed", "nodes"})
_WITHOUT_VALUE: Final = frozenset(
    (
        *("default", "defaults", "usual", "standard", "same", "normal", "original", "recommended", "random", "keep"),
        *("per", "each", "every", "an", "a", "the", "its", "this", "that", "and", "or", "of"),
    )
)
_OTHER_DATA: Final = re.compile(r"\b(?:[ekq]mnist|fashion[\s_-]?mnist|cifar[\s_-]?100|svhn)\b", re.IGNORECASE)
_SOME_TEXT: Final = re.compile(
    r"\bwikitext[\s_-]?103\b|\b(?:our|my|own|custom|internal)\s+(?:[a-z]+\s+)?(?:data(?:[\s-]?sets?)?|texts?|corpus)\b",
    re.IGNORECASE,
)


def question(text: str, trainings: int, jobs: Collection[str]) -> str:
    """What to ask before a text becomes so many trainings, beside what it does with jobs; nothing if it is clear."""
    plain = reading.settled(text)
    asked = (
        _other_data(plain),
        _relative(plain),
        _bound(plain),
        *map(_several, training.parts(plain)),
        _gpus(plain),
        _thousands(plain),
        _how_many(plain),
        _unread(plain, trainings, jobs),
        _time(plain),
        _no_parameter(plain),
        _no_value(plain),
        _whose(plain),
    )
    return next(filter(None, asked), "")


def _other_data(text: str) -> str:
    """A data set that is near a recipe's name and not it, or one recipe on top of another."""
    if match := _OTHER_DATA.search(text):
        return sayings.no_recipe(match[0])
    return sayings.which_recipe() if training.crossed(text) else ""


def _relative(text: str) -> str:
    return sayings.relative(words) if (words := reading.relative(text)) else ""


def _bound(text: str) -> str:
    """ "at least 2 epochs": a number that the value may not have, or only among others."""
    for item in reading.pairs(text):
        words = re.sub(UPPER, "", text[item.start : item.end], flags=re.IGNORECASE)
        if item.name == "max_runtime_minutes" and not re.search(ABOVE, words, re.IGNORECASE):
            text = blanked(text, item.start, item.end)
    text = re.sub(rf"\b(?:{UPPER})", lambda match: " " * len(match[0]), text, flags=re.IGNORECASE)
    match = _BOUND.search(text) or _ONE_OR.search(text) or (None if _CHANGES.search(text) else _RANGE.search(text))
    return sayings.bound(match[0]) if match else ""


def _several(text: str) -> str:
    """Several values for one parameter that are no list of trainings to make: "epochs=3, epochs=5", "GPUs 0 and 1"."""
    given: dict[str, list[Found]] = {}
    for item in reading.parameters(text):
        given.setdefault(item.name, []).append(item)
    several = {name: items for name, items in given.items() if len({value(str(item.value)) for item in items}) > 1}
    for name, items in several.items():
        if name in _ONE_EACH or len(several) > 1 or not _listed(text, items):
            written = [text[item.start : item.end].strip() for item in items]
            return sayings.which_gpus(" and ".join(written)) if name == "gpus" else sayings.several(written)
    return ""


def _listed(text: str, items: list[Found]) -> bool:
    """Whether values are a list: joined by "and", or after one name; nothing between them takes one back."""
    gaps = [text[left.end : right.start] for left, right in pairwise(items)]
    bare = all(re.fullmatch(NUMBER, text[item.start : item.end], re.IGNORECASE) for item in items[1:])
    joined = bare or any(_JOINS.search(gap) for gap in gaps)
    return joined and not any(re.search(r"\d", gap) or _CORRECTS.search(gap) for gap in gaps)


def _gpus(text: str) -> str:
    for item in reading.pairs(text):
        words = text[item.start : item.end]
        if item.name == "gpus" and re.search(r"\d\s*,\s*\d|^gpu:\d", words, re.IGNORECASE):
            return sayings.which_gpus(words)
    match = _SOME_GPUS.search(reading.remainder(text))
    return sayings.how_many_gpus(match[0]) if match else ""


def _thousands(text: str) -> str:
    """ "1.000" of what is counted is a thousand in half of the world, and one in the other."""
    for item in reading.pairs(text):
        if item.name != "lr" and _THOUSANDS.fullmatch(str(item.value)) and not re.match(r"[.,]\d", text[item.end :]):
            return sayings.thousands(str(item.value))
    return ""


def _how_many(text: str) -> str:
    """ "3 seeds" says how many, and not which."""
    for item in reading.pairs(text):
        if _VALUES_COUNTED.fullmatch(words := text[item.start : item.end]):
            return sayings.no_value(words)
    return ""


def _unread(text: str, trainings: int, jobs: Collection[str]) -> str:
    """The first number that nothing accounts for, as it was written: no parameter, no job, no count."""
    rest = text
    spans = [(item.start, item.end) for item in (*reading.sources(text), *reading.recipes(text))]
    spans += [match.span() for match in _OWN_DIGITS.finditer(text)]
    spans += [match.span() for match in re.finditer(r"(?<!\S)#?(\d+)(?=[,.;!?]?(?:\s|$))", text) if match[1] in jobs]
    spans += [match.span() for match in _COUNT.finditer(text) if value(match["count"] or "two") == trainings]
    spans += [match.span() for match in TOKEN.finditer(text) if match.lastgroup == "duration"]
    for start, end in spans:
        rest = blanked(rest, start, end)
    rest = reading.remainder(text, rest)
    if not (left := _NUMERIC.search(rest)):
        return ""
    whole = [match for match in re.finditer(NUMBER, rest, re.IGNORECASE) if match.start() <= left.start() < match.end()]
    if not left[0][0].isalpha():
        whole += [word for word in re.finditer(r"\S+", text) if word.start() <= left.start() < word.end()]
    number = max((match[0] for match in whole), key=len, default=left[0])
    word = vocabulary.NO_PARAMETER.search(text)
    return sayings.unread(number.strip(".,;!?()"), word[0] if word else "")


def _time(text: str) -> str:
    """A length of time that is not said to be the most: "in 90 min"."""
    rest = reading.remainder(text)
    match = next((match for match in TOKEN.finditer(rest) if match.lastgroup == "duration"), None)
    return sayings.no_limit(match[0]) if match else ""


def _no_parameter(text: str) -> str:
    """A word of other trainers, which none of the recipes takes: "dropout", "steps", "an A100"."""
    match = vocabulary.NO_PARAMETER.search(text)
    return sayings.no_parameter(match[0]) if match else ""


def _no_value(text: str) -> str:
    """A parameter without a number that was read: "III epochs", "a decent lr"."""
    given = {item.name for item in reading.parameters(text)}
    rest = reading.remainder(text)
    for token in TOKEN.finditer(rest):
        before = re.findall(r"[^\s,;:]+", rest[: token.start()].rpartition("\n")[2])[-1:]
        if token.lastgroup in _NEEDS_VALUE - given and before and before[0].lower() not in _WITHOUT_VALUE:
            after = re.match(r"[ =:]*[^\s,;:.]*", text[token.end() :])
            return sayings.no_value(f"{before[0]} {token[0]}{after[0] if after else ''}".strip())
    for item in reading.sources(text):
        rest = blanked(rest, item.start, item.end)
    match = _SOME_TEXT.search(rest)
    return sayings.no_value(match[0]) if match else ""


def _whose(text: str) -> str:
    """ "mnist for 3 epochs and digits with lr 0.1, both batch 32": whose parameter it is was not read."""
    match = _SHARED.search(text)
    parts = set(training.parts(text))
    if match and (len(parts) > 1 or match[0].lower() == "respectively"):
        return sayings.whose(match[0])
    ahead = text[: min((item.start for item in reading.recipes(text)), default=0)]
    if len(parts) > 1 and (
        led := _LED.search(ahead, max((item.end for item in reading.parameters(ahead)), default=len(ahead)))
    ):
        return sayings.whose(ahead[: led.start()].strip())
    return ""
