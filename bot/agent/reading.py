"""Reads the small things out of a person's words: numbers, training parameters, recipes, references, periods.

It exists so that the grammar above it can speak of meanings and not of spellings. Everything here is a pure function
of the text; values stay as they were written where `tools.spec` can convert them, and out-of-range ones pass through,
so that the tool's own sentence answers. Next step: `bot.agent.training` and `bot.agent.grammar`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from tools.spec import CATALOGUE, nearest_recipe

_UNITS: Final = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
WORDS: Final[dict[str, float]] = {word: value for value, word in enumerate(_UNITS)} | {
    **{"single": 1, "a couple of": 2, "couple": 2, "a dozen": 12, "dozen": 12, "thirty": 30, "forty": 40},
    **{"fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90},
    **{"hundred": 100, "a hundred": 100, "half an": 0.5},
}
# "0,01" with a decimal comma, "1,000" with a thousands' one, "10", "1_000", "2.5", ".05", "1e-3", "2k".
_FIGURES: Final = (
    r"[-+]?(?:0,\d+|\d{1,3}(?:,\d{3})+(?![\d,])|\d+(?:_\d+)*(?:\.\d+)?|\.\d+)(?:\s?e\s?[-+]?\d+)?(?:k(?![a-z]))?(?!\d)"
)
_MINUS: Final = r"(?:minus|negative)\s+"
_NUMBER: Final = rf"(?:{_MINUS})?(?:{_FIGURES}|(?:{'|'.join(sorted(map(re.escape, WORDS), key=len, reverse=True))})\b)"

# How people write a parameter's name. The order matters: the longer spelling first.
_NAMES: Final = {
    "max_runtime_minutes": r"max(?:imum|imal|\.)?[\s_-]*(?:run[\s_-]*)?(?:time|minutes)(?:[\s_-]*minutes)?"
    r"|time[\s_-]*limit"
    r"|time-?out",
    "block_size": r"block[\s_-]*size|context(?:[\s_-]*(?:length|size))?|sequence[\s_-]*length",
    "batch_size": r"(?:mini-?)?batch(?:es)?(?:[\s_-]*si[sz]e)?|bs",
    "lr": r"l(?:ea|e)rn(?:ing)?[\s_-]*rate?s?|lr|rate|step[\s_-]*size",
    "epochs": r"epo[a-z]*|eps?|passes",
    "seed": r"(?:random[\s_-]*)?seeds?",
    "gpus": r"gpus?|graphics? cards?",
    "nodes": r"nodes?",
    "memory_gib": r"(?:g(?:ib|i|b)?\s*(?:of\s+)?)?(?:memory|ram)(?:[\s_-]*gib)?",
    "minutes": r"minutes?|mins?",
    "hours": r"hours?|hrs?|h",
}
_TOKEN: Final = re.compile(
    "|".join(rf"(?P<{name}>(?<![a-z]){spelling}(?![a-z]))" for name, spelling in _NAMES.items())
    + rf"|(?P<number>(?<![\w.-]){_NUMBER})",
    re.IGNORECASE,
)
# What may stand between a name and its number, on either side.
_AFTER_NAME: Final = re.compile(
    r"[\s_]*(?:[:=]|,?\s*\bsay\b|\b(?:size|of|to|is|at|from|be|should be|around|about|the|a|up)\b|[\s_])*"
)
_AFTER_NUMBER: Final = re.compile(r"\s*-?\s*(?:(?:full|per|a|in each|each|examples? per|samples? per|of)\s+)*")
_MORE: Final = re.compile(r"\s*(?:,|\bor\b|\band\b|&|,\s*and)\s*", re.IGNORECASE)
_LAST_LR: Final = re.compile(r"\s+[\d.]+e-\d+\s*$", re.IGNORECASE)  # "1ep 5e-5"
_DECIMAL: Final = re.compile(r"[^\s,]+,\d+(?:e[-+]?\d+)?|\d+,[^\s,]+", re.IGNORECASE)
_FROM_TO: Final = re.compile(r"\bfrom\s+\S+\s+to\s*$", re.IGNORECASE)
_NOT_WANTED: Final = re.compile(r"\b(?:not|instead of|rather than|from)\s*$", re.IGNORECASE)

_WITHOUT_GPU: Final = re.compile(
    r"\b(?:no|without|minus|w/o|not? us(?:e|ing)|not on|off|disable[d]?|don'?t use|do not use)\s+(?:the\s+|a\s+"
    r"|any\s+)?gpus?\b"
    r"|\bgpus?(?:[\s_-]*enabled)?\s*[:=]?\s*(?:off|disabled|false|no|none)\b|(?<!not )(?<!not on )\bcpus?\b",
    re.IGNORECASE,
)
_WITH_GPU: Final = re.compile(r"\bgpus?\b|\bgraphics? cards?\b", re.IGNORECASE)
_TIME_CAP: Final = re.compile(
    r"\b(?:max\w*|at most|at the latest|within|limit\w*|no (?:longer|more) than|not longer than|up to|stop\w*"
    r"|cap\w*)\b|\bfor\s*$",
    re.IGNORECASE,
)
_FACTOR: Final = re.compile(
    r"\b(?<!and a )(?P<factor>double|twice|triple|half|halve|ten times|10x|2x)\s+(?:of\s+)?(?:the\s+|as many\s+"
    r"|as much\s+)?(?:number of\s+)?"
    rf"(?P<name>{_NAMES['batch_size']}|{_NAMES['lr']}|{_NAMES['epochs']})\b",
    re.IGNORECASE,
)
_FACTORS: Final = {"double": 2.0, "twice": 2.0, "2x": 2.0, "triple": 3.0, "half": 0.5, "halve": 0.5}

# What may not be left over where a training is proposed: it would have changed it.
_NUMERIC: Final = re.compile(
    r"[\d%^]|\b(?:"
    + "|".join(sorted({*WORDS, *_FACTORS} - {"one", "single", "couple", "a couple of", "halve"}, key=len, reverse=True))
    + r"|thirds?|quarters?|tenths?|hundredths?|thousand(?:ths?)?|millions?|percent)\b",
    re.IGNORECASE,
)
# Names, mentions and addresses may have digits of their own ("JIRA-12"); "lr1e-3" and "x10" are numbers.
_OWN_DIGITS: Final = re.compile(
    rf"<[@#!]\S*>|\S+://\S+|(?<![\w.-])(?!(?:x|{'|'.join(_NAMES.values())})[\d.])[a-z][a-z_-]*\d[\w-]*", re.IGNORECASE
)
_UNWANTED_NUMBER: Final = re.compile(rf"\b(?:not|instead of|rather than)\s+{_NUMBER}", re.IGNORECASE)
_COUNT: Final = re.compile(rf"\b(?P<count>{_NUMBER})\s+(?:runs?|trainings?|jobs?|times)\b|\btwice\b", re.IGNORECASE)
_ANY_NAME: Final = "|".join(_NAMES[name] for name in ("block_size", "batch_size", "lr", "epochs", "gpus", "nodes"))
_COMPARED: Final = r"(?:more|fewer|less|longer|higher|lower|bigger|larger|smaller|extra|additional)"
_ADDED: Final = re.compile(rf"\badd(?:ing)?\s+{_NUMBER}\s*\S*|\b(?:{_ANY_NAME})\s+{_COMPARED}\b", re.IGNORECASE)
_COMPARISON: Final = re.compile(
    rf"\b(?:{_COMPARED}|increase|decrease|raise|reduce|bump(?: up)?)\s+(?:the\s+)?(?:{_ANY_NAME})\b", re.IGNORECASE
)

_SOURCE: Final = r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)*"
_DATASET: Final = re.compile(
    rf"\b(?:data[\s-]?set|corpus|data)\s*(?:[:=]|named|called)?\s*(?P<a>{_SOURCE})"
    rf"|\bthe\s+(?P<b>[\w.-]+/[\w./-]+|wikitext-2)\s+data[\s-]?set",
    re.IGNORECASE,
)
_MODEL: Final = re.compile(rf"\bmodel(?:_name)?\s*(?:[:=]|named|called|is)?\s*(?P<a>{_SOURCE})", re.IGNORECASE)
# Without "model" before it, only what looks like an id: "sshleifer/tiny-gpt2", not "w/o" or "train/val".
_HUB_ID: Final = re.compile(
    r"(?<![\w/])(?P<a>(?=[\w.-]*[a-z])[A-Za-z0-9][\w.-]+/(?=[\w.]*[-\d])[A-Za-z0-9][\w.-]+)", re.IGNORECASE
)

# Words near a recipe's name that are not misspellings of it.
_OTHER_DATA: Final = re.compile(r"\b(?:[ekq]mnist|fashion[\s_-]?mnist)\b", re.IGNORECASE)
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


def plain(text: str) -> str:
    """The text with one kind of quote, dash and space, and without emoji and bold marks; lines stay lines."""
    raised = _RAISED.sub(lambda match: f"^{match[0]}", text.replace("½", ".5"))
    folded = unicodedata.normalize("NFKC", raised).translate(_TYPOGRAPHY)
    kept = "".join(
        char if unicodedata.category(char) not in {"So", "Sk", "Cf", "Cc"} or char in "\n^" else " " for char in folded
    )
    return re.sub(r"[ \t]+", " ", _BOLD.sub(" ", kept)).strip()


def number(text: str) -> str | float:
    """A written number: number words and "0,01" become figures, the rest stays as it is for `tools.spec`."""
    word = " ".join(text.lower().split())
    if minus := re.match(_MINUS, word):
        return f"-{number(word[minus.end() :])}"
    if word in WORDS:
        return WORDS[word]
    word = word.replace(" ", "")
    if word.endswith("k"):
        return float(word[:-1].replace(",", "")) * 1000
    if re.match(r"[-+]?0,", word):
        return word.replace(",", ".")
    return word


def parameters(text: str) -> list[Found]:
    """Every parameter that the text names, in order; a list of values ("lr 0.1 and 0.01") gives one each."""
    found = list(_pairs(text))
    gpu = _gpu(text, found)
    return sorted([*found, *gpu], key=lambda item: item.start)


def factors(text: str) -> list[tuple[str, float]]:
    """Parameters to be multiplied: "double the epochs" → ("epochs", 2.0)."""
    return [
        (_parameter_of(match["name"]), _FACTORS.get(match["factor"].lower(), 10.0)) for match in _FACTOR.finditer(text)
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


def unread(text: str, trainings: int, jobs: Collection[str]) -> str | None:
    """The first number of a text that nothing accounts for, as it was written: no parameter, no job, no count."""
    rest = text
    spans = [(item.start, item.end) for item in (*_pairs(text), *sources(text), *recipes(text))]
    spans += [match.span() for pattern in (_FACTOR, _UNWANTED_NUMBER, _OWN_DIGITS) for match in pattern.finditer(text)]
    spans += [match.span() for match in re.finditer(r"(?<!\S)#?(\d+)(?=[,.;!?]?(?:\s|$))", text) if match[1] in jobs]
    spans += [match.span() for match in _COUNT.finditer(text) if str(number(match["count"] or "two")) == str(trainings)]
    for start, end in spans:
        rest = blanked(rest, start, end)
    if not (left := _NUMERIC.search(rest)):
        return None
    if left[0][0].isalpha():
        return left[0]
    return next(word[0] for word in re.finditer(r"\S+", text) if word.end() > left.start()).strip(".,;!?()")


def relative(text: str) -> str | None:
    """Where a text changes a parameter by or from what it was, without the value that comes of it: "a higher lr"."""
    if match := _ADDED.search(text):
        return match[0]
    rest = text
    for start, end in [(item.start, item.end) for item in _pairs(text)] + [m.span() for m in _FACTOR.finditer(text)]:
        rest = blanked(rest, start, end)
    match = _COMPARISON.search(rest)
    return match[0] if match else None


def other_data(text: str) -> str | None:
    """A data set that is near a recipe's name and not it."""
    match = _OTHER_DATA.search(text)
    return match[0] if match else None


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


def _pairs(text: str) -> Iterator[Found]:
    tokens = list(_TOKEN.finditer(text))
    index = 0
    while index < len(tokens):
        here = tokens[index]
        after = tokens[index + 1] if index + 1 < len(tokens) else None
        step = 1
        if after and here.lastgroup == "number" and after.lastgroup != "number":
            if _AFTER_NUMBER.fullmatch(text, here.end(), after.start()) and not _NOT_WANTED.search(
                text[: here.start()]
            ):
                step = 2
                if made := _found(text, after.lastgroup or "", here, here.start(), after.end()):
                    yield made
        elif here.lastgroup != "number" and after and after.lastgroup == "number" and _takes_number(text, here, after):
            name = here.lastgroup or ""
            unit = tokens[index + 2] if index + 2 < len(tokens) else None
            end, hours = after.end(), False
            if name == "max_runtime_minutes" and unit and unit.lastgroup in {"minutes", "hours"}:
                hours, end = unit.lastgroup == "hours", unit.end()
            step = 2
            if unit and unit.lastgroup == "number" and _FROM_TO.search(text[here.end() : unit.start()]):
                after, end, step = unit, unit.end(), 3  # "epochs from 3 to 10" wants ten
            if made := _found(text, name, after, here.start(), end, hours=hours):
                yield made
            for more in _list_of(text, tokens[index + step :], after):
                step += 1
                if made := _found(text, name, more, more.start(), more.end()):
                    yield made
        elif index and _LAST_LR.match(text, tokens[index - 1].end()) and not any(t.lastgroup == "lr" for t in tokens):
            yield Found(name="lr", value=number(here[0]), start=here.start(), end=here.end())
        index += step


def _takes_number(text: str, name: re.Match[str], value: re.Match[str]) -> bool:
    """Whether a name stands before its number. "on the GPU 4 epochs" gives the GPU none; "gpus: 4" does."""
    gap = text[name.end() : value.start()]
    if name.lastgroup in {"minutes", "hours"} or not _AFTER_NAME.fullmatch(gap):
        return False
    return name.lastgroup != "gpus" or "=" in gap or ":" in gap or name[0].lower().endswith("s")


def _list_of(text: str, tokens: list[re.Match[str]], last: re.Match[str]) -> Iterator[re.Match[str]]:
    """The further values of "lr 0.1, 0.01 and 0.001": numbers that no name claims. "1,5" is rather one number."""
    if tokens and _DECIMAL.fullmatch(text, last.start(), tokens[0].end()) and text[tokens[0].end() :][:1] != ",":
        return
    for index, token in enumerate(tokens):
        follower = tokens[index + 1] if index + 1 < len(tokens) else None
        claimed = (
            follower is not None
            and follower.lastgroup != "number"
            and _AFTER_NUMBER.fullmatch(text, token.end(), follower.start())
        )
        if token.lastgroup != "number" or claimed or not _MORE.fullmatch(text, last.end(), token.start()):
            return
        yield token
        last = token


def _found(text: str, name: str, value: re.Match[str], start: int, end: int, *, hours: bool = False) -> Found | None:
    read = number(value[0])
    if name in {"minutes", "hours"}:
        if not _TIME_CAP.search(text[max(0, start - 40) : start]) and not _TIME_CAP.search(text[end : end + 20]):
            return None
        name, hours = "max_runtime_minutes", name == "hours"
    if hours:
        read = round(float(str(read).replace(",", "")) * 60)
    return Found(name=name, value=read, start=start, end=end)


def _gpu(text: str, found: list[Found]) -> Iterator[Found]:
    """GPU or CPU where no number of GPUs was named."""
    if any(item.name == "gpus" for item in found):
        return
    if match := _WITHOUT_GPU.search(text):
        yield Found(name="gpus", value=0, start=match.start(), end=match.end())
    elif match := _WITH_GPU.search(text):
        yield Found(name="gpus", value=1, start=match.start(), end=match.end())


def _parameter_of(written: str) -> str:
    return next(name for name, spelling in _NAMES.items() if re.fullmatch(spelling, written.strip(), re.IGNORECASE))


def _key(written: str) -> str:
    """The alias that a match of `_EXACT` stands for."""
    squeezed = re.sub(r"[\s_-]", "", written.lower().removesuffix("'s"))
    return next(alias for alias in _ALIASES if alias.replace("-", "") == squeezed)
