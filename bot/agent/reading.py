"""Reads the small things out of a person's words: numbers, training parameters, recipes, references, periods.

It exists so that the grammar above it can speak of meanings and not of spellings. Everything here is a pure function
of the text; values stay as they were written where `tools.spec` can convert them, and out-of-range ones pass through,
so that the tool's own sentence answers. Next step: `bot.agent.training` and `bot.agent.grammar`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bot.agent.numbers import DURATION, NUMBER, minutes, number, value
from tools.spec import CATALOGUE, nearest_recipe

# How people write a parameter's name. The order matters: the longer spelling first.
NAMES: Final = {
    "max_runtime_minutes": r"max(?:imum|imal|\.)?[\s_-]*(?:run[\s_-]*)?(?:time|minutes)(?:[\s_-]*minutes)?"
    r"|time[\s_-]*limit"
    r"|time-?out",
    "block_size": r"block[\s_-]*size|context(?:[\s_-]*(?:length|size))?|ctx"
    r"|(?:max[\s_-]*)?seq(?:uence)?[\s_-]*len(?:gth)?"
    r"|max[\s_-]*len(?:gth)?",
    "batch_size": r"(?:mini-?)?batch(?:es)?(?:[\s_-]*si[sz]e)?|bs",
    "lr": r"l(?:ea|e)rn(?:ing)?[\s_-]*rate?s?|lr|rate|step[\s_-]*size",
    "epochs": r"epo[a-z]*|eps?|passes",
    "seed": r"(?:random[\s_-]*)?seeds?",
    "gpus": r"gpus?|graphics? cards?",
    "nodes": r"nodes?",
    "memory_gib": r"(?:g(?:ib|i|b)?\s*(?:of\s+)?)?(?:memory|ram)(?:[\s_-]*gib)?",
}
TOKEN: Final = re.compile(
    rf"(?P<duration>(?<![\w.-]){DURATION})|"
    + "|".join(rf"(?P<{name}>(?<![a-z])(?:{spelling})(?![a-z]))" for name, spelling in NAMES.items())
    + rf"|(?P<number>(?<![\w.-])(?:{NUMBER}|an(?=\s+epoch\b)))",
    re.IGNORECASE,
)
# Bounds: the upper one that may be reached is taken as the value, the others are none.
UPPER: Final = (
    r"at\s+(?:the\s+)?most|up\s+to|max(?:imum)?(?:\s+of)?|within|<=|≤"
    r"|(?:no|not|\w+n't)\s+(?:[a-z]+\s+){0,2}?(?:(?:more|longer|later)\s+than|exceed(?:ing)?)"
)
BELOW: Final = r"(?<!no )(?<!not )(?:(?:less|fewer|lower|smaller|shorter)\s+than|under|below)|<(?!=)"
ABOVE: Final = (
    r"at\s+(?:the\s+)?(?:very\s+)?least|(?<!no )(?<!not )(?:more|greater|higher|larger|bigger|longer)\s+than|above"
    r"|exceeding|upwards?\s+of|min(?:imum)?(?:\s+of)?|(?:no|not)\s+(?:less|fewer|under|below)(?:\s+than)?|>=?|≥"
)
_VALUED: Final = "|".join(NAMES[name] for name in ("block_size", "batch_size", "lr", "epochs", "seed", "nodes"))
# What may stand between a name and its number, on either side.
_AFTER_NAME: Final = re.compile(
    rf"[\s_]*(?:[:=~]|,?\s*\bsay\b|\b(?:size|of|to|is|at|from|be|should be|around|about|the|a|up)\b|[\s_]"
    rf"|{UPPER}|{BELOW}|{ABOVE})*",
    re.IGNORECASE,
)
_AFTER_NUMBER: Final = re.compile(
    r"\s*-?\s*(?:(?:full|per|a|in each|each|examples? per|samples? per|of)\s+)*", re.IGNORECASE
)
_TIMES: Final = re.compile(r"\s*[x×]\s*", re.IGNORECASE)  # "2x GPU"
_NO_VALUE: Final = re.compile(
    r"(?!\s?g(?:i?b|i)?\b)(?:[a-z]|\s+(?:[kmt]i?b|x|times|point)\b)", re.IGNORECASE
)  # "lr 10x", "64M"
_MORE: Final = re.compile(r"\s*(?:,|\band\b|&|,\s*and)\s*", re.IGNORECASE)
_LAST_LR: Final = re.compile(r"\s+[\d.]+e-\d+\s*$", re.IGNORECASE)  # "1ep 5e-5"
_DECIMAL: Final = re.compile(r"[^\s,]+,\d+(?:e[-+]?\d+)?|\d+,[^\s,]+", re.IGNORECASE)
_FROM_TO: Final = re.compile(r"\bfrom\s+\S+\s+to\s*$", re.IGNORECASE)
_NOT_FROM: Final = re.compile(r"\bfrom\s*$", re.IGNORECASE)
# "not 5 epochs but 3", "3, not 5 epochs", "3 epochs instead of 5": the name stays, what is refused goes.
_REFUSED: Final = re.compile(
    rf",?\s*\b(?:not|instead\s+of|rather\s+than)\s+(?:for\s+|with\s+)?"
    rf"(?P<before>(?:{_VALUED})(?![a-z])[\s:=]*)?{NUMBER}(?P<after>[\s-]*(?:{_VALUED}|{NAMES['gpus']})(?![a-z]))?"
    rf"(?:,?\s*\bbut\s+(?:(?:for|with|only|just|rather)\s+)?(?=(?:{_VALUED})?[\s:=]*{NUMBER}))?",
    re.IGNORECASE,
)

_WITHOUT_GPU: Final = re.compile(
    r"\b(?:no|without|minus|w/o|not? us(?:e|ing)|not on|off|disable[d]?|don'?t use|do not use)\s+(?:the\s+|a\s+"
    r"|any\s+)?gpus?\b"
    r"|(?<![a-z])gpus?(?:[\s_-]*enabled)?\s*[:=]?\s*(?:off|disabled|false|no|none)\b"
    r"|(?<!not )(?<!not on )(?<!instead of )(?<!than )\bcpus?\b",
    re.IGNORECASE,
)
_WITH_GPU: Final = re.compile(r"(?<![a-z])gpus?\b|\bgraphics? cards?\b", re.IGNORECASE)
_LIMIT: Final = r"limit\w*|cap(?:ped|s)?|dead-?line|time-?out|max\w*|(?:run|wall)-?\s?(?:clock|time)"
_TIME_BEFORE: Final = re.compile(
    rf"(?:\b(?:{_LIMIT}|stop\w*|kill\w*|finish\w*|done|for)\b|{UPPER}|{BELOW}|\bshorter\s+than)[\s:=]*"
    r"(?:(?:it|the|this|of|an?|to|at|is|be|in|after|about|around|run|job|training|time)\s+){0,4}~?\s*$",
    re.IGNORECASE,
)
_TIME_AFTER: Final = re.compile(
    rf"\s*-?(?:(?:of|as|a|the)\s+)*(?:run-?)?(?:time\s+)?(?:{_LIMIT}|at\s+(?:the\s+)?(?:most|latest)|tops|or\s+less)\b",
    re.IGNORECASE,
)
FACTOR: Final = re.compile(
    r"\b(?<!and a )(?P<factor>double|twice|triple|half|halve|ten times|10x|2x)\s+(?:of\s+)?(?:the\s+|as many\s+"
    r"|as much\s+)?(?:number of\s+)?"
    rf"(?P<name>{NAMES['batch_size']}|{NAMES['lr']}|{NAMES['epochs']})\b",
    re.IGNORECASE,
)
FACTORS: Final = {"double": 2.0, "twice": 2.0, "2x": 2.0, "triple": 3.0, "half": 0.5, "halve": 0.5}

ANY_NAME: Final = "|".join(NAMES[name] for name in ("block_size", "batch_size", "lr", "epochs", "gpus", "nodes"))
_COMPARED: Final = r"(?:more|fewer|less|longer|higher|lower|bigger|larger|smaller|extra|additional)"
_ADDED: Final = re.compile(
    rf"\badd(?:ing)?\s+{NUMBER}\s*\S*|\banother\s+{NUMBER}[\s-]*(?:{ANY_NAME})\b|\b(?:{ANY_NAME})\s+{_COMPARED}\b",
    re.IGNORECASE,
)
_COMPARISON: Final = re.compile(
    rf"\b(?:{_COMPARED}|increase|decrease|raise|reduce|bump(?: up)?)\s+(?:the\s+)?(?:{ANY_NAME})\b", re.IGNORECASE
)
_VAGUE: Final = re.compile(r"\b(?:longer|shorter|bigger|larger|smaller)\b(?!\s+than)", re.IGNORECASE)

_SOURCE: Final = r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)*"
_DATASET: Final = re.compile(
    rf"\b(?:data[\s-]?set|corpus|data)\s*(?:[:=]|named|called)?\s*(?P<a>{_SOURCE})"
    rf"|\bthe\s+(?P<b>[\w.-]+/[\w./-]+|wikitext-2)\s+data[\s-]?set",
    re.IGNORECASE,
)
_MODEL: Final = re.compile(rf"\bmodel(?:_name)?\s*(?:[:=]|named|called|is)?\s*(?P<a>{_SOURCE})", re.IGNORECASE)
# Without "model" before it, only what looks like an id: "sshleifer/tiny-gpt2", not "w/o" or "train/val".
_HUB_ID: Final = re.compile(
    r"(?<![\w/])(?P<a>(?![\d.e+-]+/[\d.e+-]+(?![\w.]))(?=[\w.-]*[a-z])[A-Za-z0-9][\w.-]+/(?=[\w.]*[-\d])[A-Za-z0-9][\w.-]+)",
    re.IGNORECASE,
)

# Words near a recipe's name that are not misspellings of it.
_NOT_RECIPES: Final = frozenset(
    (
        *("digital", "midst", "mist", "digest", "llms", "minutes", "minute", "mint", "digestive"),
        *("emnist", "kmnist", "qmnist"),
    )
)
_ALIASES: Final = {
    alias: name
    for name, recipe in CATALOGUE.items()
    for alias in (name, *recipe.aliases)
    if alias not in {"train-mnist"}
}
_EXACT: Final = re.compile(
    r"(?<![\w/-])(?<!fashion )(?:"
    + "|".join(
        re.escape(alias).replace(r"\-", r"[\s_-]?").replace("gpt2", r"gpt[\s_-]?2")
        for alias in sorted(_ALIASES, key=len, reverse=True)
    )
    + r")(?:'s)?(?![\w/]|-\w)",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"(?<![\w/-])[a-z][\w-]{3,}", re.IGNORECASE)

_JOB_NAME: Final = rf"[a-z][a-z0-9]*-\d+-[0-9a-z]{{3,}}|(?:{'|'.join(CATALOGUE)})-\d+"
_RUN_ID: Final = r"(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{6,32}"
_REFERENCE: Final = re.compile(
    rf"(?<![\w.-])(?<!\d:)(?<!\bby )(?:(?P<job>{_JOB_NAME})|(?P<run>{_RUN_ID})|(?:#|no\.\s*"
    rf"|nr\.?\s*)?(?P<number>\d{{1,6}}))(?![\w.%$€]|-\w|:\d|,\d)",
    re.IGNORECASE,
)
_DATE: Final = re.compile(r"\b\d{4}-\d{2}(?:-\d{2})?\b")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A parameter as it was written, and where."""

    name: str
    value: str | float
    start: int
    end: int


_TYPOGRAPHY: Final = str.maketrans("’‘`´“”–—−", "''''\"\"---")

_RAISED: Final = re.compile(r"[⁺⁻]?[⁰¹²³⁴-⁹]+")
_BOLD: Final = re.compile(r"(?<!\w)\*+|\*+(?!\w)")


_LIST_MARK: Final = re.compile(
    r"(?:^|(?<=\n))[ \t]*\(?(?P<a>\d{1,2})[.)][ \t]+(?=\S)|(?<!\S)\((?P<b>\d{1,2})\)[ \t]+(?!(?:and|or)\b)(?=[a-z])",
    re.IGNORECASE,
)


def plain(text: str) -> str:
    """The text with one kind of quote, dash and space, and without emoji and bold marks; lines stay lines."""
    raised = _RAISED.sub(lambda match: f"^{match[0]}", text.replace("½", ".5"))
    folded = unicodedata.normalize("NFKC", raised).translate(_TYPOGRAPHY)
    kept = "".join(
        char if unicodedata.category(char) not in {"So", "Sk", "Cf", "Cc"} or char in "\n^" else " " for char in folded
    )
    return re.sub(r"[ \t]+", " ", _BOLD.sub(" ", _without_marks(kept))).strip()


def _without_marks(text: str) -> str:
    """The text with the numbers of a list, which count from one, as line breaks."""
    marks = list(_LIST_MARK.finditer(text))
    if [int(mark["a"] or mark["b"]) for mark in marks] != list(range(1, len(marks) + 1)):
        return text
    return _LIST_MARK.sub("\n", text)


def parameters(text: str) -> list[Found]:
    """Every parameter that the text names, in order; a list of values ("lr 0.1 and 0.01") gives one each."""
    found = list(pairs(text))
    gpu = _gpu(text, found)
    return sorted([*found, *gpu], key=lambda item: item.start)


def factors(text: str) -> list[tuple[str, float]]:
    """Parameters to be multiplied: "double the epochs" → ("epochs", 2.0)."""
    return [
        (_parameter_of(match["name"]), FACTORS.get(match["factor"].lower(), 10.0)) for match in FACTOR.finditer(text)
    ]


def sources(text: str) -> list[Found]:
    """A model or data set named by the person; a recipe's name is neither."""
    found: list[Found] = []
    for name, pattern in (("dataset", _DATASET), ("model", _MODEL), ("model", _HUB_ID)):
        for match in pattern.finditer(text):
            group = "a" if match["a"] else "b"
            value = match[group].rstrip(".-")
            explicit = "/" in value or re.search(r"[:=]|named|called", match[0]) or name == "dataset"
            taken = any(other.start < match.end(group) and match.start(group) < other.end for other in found)
            if explicit and not taken and not recipes(value) and len(value) > 2 and value.lower() not in _FILLERS:
                found.append(Found(name=name, value=value, start=match.start(), end=match.end()))
    return found


def recipes(text: str) -> list[Found]:
    """The recipes that the text names, misspelt ones too; `value` is the catalogue's name."""
    found = [
        Found(name="recipe", value=_ALIASES[_key(match[0])], start=match.start(), end=match.end())
        for match in _EXACT.finditer(text)
    ]
    for match in _WORD.finditer(text):
        word = match[0].lower()
        inside = any(item.start < match.end() and match.start() < item.end for item in found)
        if inside or word in _NOT_RECIPES or re.fullmatch(_JOB_NAME, word):
            continue
        near = nearest_recipe(word, cutoff=0.79)
        if near and not (near == "distilgpt2" and "gpt" not in word and "distil" not in word):
            found.append(Found(name="recipe", value=near, start=match.start(), end=match.end()))
    return sorted(found, key=lambda item: item.start)


def references(text: str) -> list[str]:
    """Proposal numbers, job names and run ids, in order, each once. Numbers that belong to a parameter are none."""
    blanked = _DATE.sub(lambda match: " " * len(match[0]), text)
    for item in parameters(text):
        blanked = blanked[: item.start] + " " * (item.end - item.start) + blanked[item.end :]
    found = [match["job"] or match["run"] or match["number"] for match in _REFERENCE.finditer(blanked)]
    return list(dict.fromkeys(reference.lower() for reference in found))


def relative(text: str) -> str:
    """Where a text changes a parameter by or from what it was, without the value that comes of it: "a higher lr"."""
    if match := _ADDED.search(text):
        return match[0]
    rest = remainder(text)
    match = _COMPARISON.search(rest) or (_VAGUE.search(rest) if rest == text else None)
    return match[0] if match else ""


def remainder(text: str, rest: str | None = None) -> str:
    """What is left of a text without its parameters and factors."""
    rest = text if rest is None else rest
    spans = [(item.start, item.end) for item in pairs(text)]
    for start, end in (*spans, *(match.span() for match in FACTOR.finditer(text))):
        rest = blanked(rest, start, end)
    return rest


def blanked(text: str, start: int, end: int) -> str:
    """The text with spaces in a place, so that other places stay."""
    return text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]


def period(text: str) -> str | None:
    """A period in the words that `get_spend` knows, or None."""
    if date := _DATE.search(text):
        return date[0]
    for pattern, name in (
        (r"\byesterday", "yesterday"),
        (r"\b(?:last|previous|past) week", "last week"),
        (r"\b(?:last|previous|past) month", "last month"),
        (r"\btoday|\btonight|so far today", "today"),
        (r"\bweek", "week"),
        (r"\bmonth", "month"),
        (r"\b(?:ever|all time|overall|altogether|in total|so far)\b", "all"),
    ):
        if re.search(pattern, text, re.IGNORECASE):
            return name
    return None


_FILLERS: Final = frozenset(
    {"the", "for", "with", "and", "set", "size", "from", "first", "please", "that", "this", "here", "was"}
)


def settled(text: str) -> str:
    """The text without the numbers that it refuses itself: "not 5 epochs but 3" leaves "epochs 3", all in place."""
    for match in _REFUSED.finditer(text):
        text = blanked(text, match.start(), match.end())
        for start, end in (match.span("before"), match.span("after")):
            text = text[:start] + match.string[start:end] + text[end:] if start >= 0 else text
    return text


def pairs(text: str) -> list[Found]:
    """The parameters that have a number, in the order of the text."""
    text = settled(text)
    tokens = list(TOKEN.finditer(text))
    found: list[Found] = []
    index = 0
    while index < len(tokens):
        read = _pair(text, tokens, index)
        found += read
        index += 1
        while read and index < len(tokens) and tokens[index].start() < read[-1].end:
            index += 1
    return found + _rate(text, tokens, found)


def _pair(text: str, tokens: list[re.Match[str]], index: int) -> list[Found]:
    """What a token makes with those after it: a name and its number in either order, or a limit of time."""
    here, after = tokens[index], tokens[index + 1] if index + 1 < len(tokens) else None
    if here.lastgroup == "duration":
        return _limit(text, here)
    if after is None:
        return []
    if here.lastgroup != "number":
        return _valued(text, here, tokens[index + 1 :]) if _takes(text, here, after) else []
    gap = text[here.end() : after.start()]
    named = after.lastgroup not in _VALUES and not _NOT_FROM.search(text[max(0, here.start() - 8) : here.start()])
    times = after.lastgroup in {"gpus", "nodes"} and _TIMES.fullmatch(gap)
    return [_found(after, here, here.start(), after.end())] if named and (times or _AFTER_NUMBER.fullmatch(gap)) else []


def _rate(text: str, tokens: list[re.Match[str]], found: list[Found]) -> list[Found]:
    """The learning rate at the end of "mnist 1ep 5e-5"."""
    if len(tokens) < 2 or any(token.lastgroup == "lr" for token in tokens) or (found and found[-1].end == len(text)):
        return []
    last = tokens[-1]
    if not _LAST_LR.match(text, tokens[-2].end()):
        return []
    return [Found(name="lr", value=number(last[0]), start=last.start(), end=last.end())]


def _valued(text: str, name: re.Match[str], after: Sequence[re.Match[str]]) -> list[Found]:
    """A name with the number behind it, or with a list of them; "epochs from 3 to 10" wants ten."""
    given, *more = after
    if more and more[0].lastgroup == "number" and _FROM_TO.search(text[name.end() : more[0].start()]):
        given, *more = more
    listed = [_found(name, one, one.start(), one.end()) for one in _list_of(text, more, given)]
    return [_found(name, given, name.start(), given.end()), *listed]


_VALUES: Final = frozenset({"number", "duration"})


def _takes(text: str, name: re.Match[str], given: re.Match[str]) -> bool:
    """Whether a name stands before its value. "on the GPU 4 epochs" gives the GPU none; "gpus: 4" does."""
    gap = text[name.end() : given.start()]
    if given.lastgroup != "number" and (given.lastgroup, name.lastgroup) != ("duration", "max_runtime_minutes"):
        return False
    if not _AFTER_NAME.fullmatch(gap) or (given.lastgroup == "number" and _NO_VALUE.match(text, given.end())):
        return False
    return name.lastgroup != "gpus" or "=" in gap or ":" in gap or name[0].lower().endswith("s")


def _limit(text: str, duration: re.Match[str]) -> list[Found]:
    """A length of time that is said to be the most: "at most 2 hours", "90 min max"."""
    before = _TIME_BEFORE.search(text, max(0, duration.start() - 60), duration.start())
    after = _TIME_AFTER.match(text, duration.end())
    if not before and not after:
        return []
    start, end = before.start() if before else duration.start(), after.end() if after else duration.end()
    return [Found(name="max_runtime_minutes", value=minutes(duration[0]), start=start, end=end)]


def _list_of(text: str, tokens: list[re.Match[str]], last: re.Match[str]) -> Iterator[re.Match[str]]:
    """The further values of "lr 0.1, 0.01 and 0.001": numbers that no name claims. "1,5" is rather one number."""
    if tokens and _DECIMAL.fullmatch(text, last.start(), tokens[0].end()) and text[tokens[0].end() :][:1] != ",":
        return
    for index, token in enumerate(tokens):
        follower = tokens[index + 1] if index + 1 < len(tokens) else None
        claimed = (
            follower is not None
            and follower.lastgroup not in _VALUES
            and _AFTER_NUMBER.fullmatch(text, token.end(), follower.start())
        )
        if token.lastgroup != "number" or claimed or not _MORE.fullmatch(text, last.end(), token.start()):
            return
        yield token
        last = token


def _found(name: re.Match[str], given: re.Match[str], start: int, end: int) -> Found:
    read = minutes if given.lastgroup == "duration" else number
    return Found(name=name.lastgroup or "", value=read(given[0]), start=start, end=end)


def _gpu(text: str, found: list[Found]) -> Iterator[Found]:
    """GPU or CPU where no number of GPUs was named; beside a number, that there shall be none is said too."""
    numbered = [item for item in found if item.name == "gpus"]
    without = _WITHOUT_GPU.search(text)
    if without and all(value(str(item.value)) for item in numbered):
        yield Found(name="gpus", value=0, start=without.start(), end=without.end())
    elif not numbered and not without and (match := _WITH_GPU.search(text)):
        yield Found(name="gpus", value=1, start=match.start(), end=match.end())


def _parameter_of(written: str) -> str:
    return next(name for name, spelling in NAMES.items() if re.fullmatch(spelling, written.strip(), re.IGNORECASE))


def _key(written: str) -> str:
    """The alias that a match of `_EXACT` stands for."""
    squeezed = re.sub(r"[\s_-]", "", written.lower().removesuffix("'s"))
    return next(alias for alias in _ALIASES if alias.replace("-", "") == squeezed)
