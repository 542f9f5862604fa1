"""Numbers and lengths of time as people write them: figures, words, scales, "2h30", "an hour and a half".

It exists so that there is one place that says what counts as a number. `NUMBER` and `DURATION` are patterns to build
others with; what they match, `number` and `minutes` turn into a value. Next step: `bot.agent.reading`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_ONES: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS: Final = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES: Final = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 1_000_000}
_VALUES: Final[dict[str, Fraction]] = {
    **{word: Fraction(value) for value, word in enumerate(("zero", *_ONES, *_TEENS))},
    **{word: Fraction(value) for value, word in zip(range(20, 100, 10), _TENS, strict=True)},
    **{"single": Fraction(1), "couple": Fraction(2), "half": Fraction(1, 2)},
}
WORDS: Final = frozenset({*_VALUES, *_SCALES})

# "0,01" with a decimal comma, "1,000" with a thousands' one, "10", "1_000", "2.5", ".05", "1e-3", "2k", "1 k".
FIGURES: Final = (
    r"[-+]?(?:0,\d+|\d{1,3}(?:,\d{3})+(?![\d,])|\d+(?:_\d+)*(?:\.\d+)?|\.\d+)(?:\s?e\s?[-+]?\d+)?"
    r"(?:\s?k(?![a-z0-9]))?(?!\d)"
)


def _any(words: tuple[str, ...]) -> str:
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_AND: Final = r"(?:[\s-]+and)?[\s-]+"
_SMALL: Final = rf"(?:{_any(_TENS)}(?:[\s-]*{_any(_ONES)})?|{_any(_TEENS)}|{_any(_ONES)})"
_SCALED: Final = (
    rf"(?:(?:half\s+a|{FIGURES}|{_SMALL}|a(?:\s+couple\s+of)?)[\s-]+)?(?:dozen|hundred)\b(?:{_AND}{_SMALL}\b)?"
)
_LARGE: Final = (
    rf"(?:half\s+a|{_SCALED}|{FIGURES}|{_SMALL}|a)[\s-]+(?:thousand|million)\b(?:{_AND}(?:{_SCALED}|{_SMALL}\b))?"
)
_MINUS: Final = r"(?:minus|negative)\s+"
NUMBER: Final = (
    rf"(?:{_MINUS})?(?:{_LARGE}|{_SCALED}|{FIGURES}|{_SMALL}\b|(?:zero|single|half\s+an|(?:a\s+)?couple(?:\s+of)?)\b)"
)

_HALF: Final = r"\s+and\s+a\s+half\b"
_UNIT: Final = r"(?:d(?:ays?)?|h(?:(?:ou)?rs?)?|m(?:in(?:ute)?s?)?)"
_PART: Final = re.compile(
    rf"(?P<count>{NUMBER}|an?(?=\s+(?:day|hour|minute)\b))(?P<half>{_HALF})?[\s-]*(?P<unit>{_UNIT})(?![a-z])"
    rf"(?P<more>{_HALF})?",
    re.IGNORECASE,
)
_BARE_PART: Final = re.sub(r"\?P<\w+>", "?:", _PART.pattern)
_CLOCK: Final = r"\d{1,2}:[0-5]\d\s*h(?:(?:ou)?rs?)?\b|\d{1,2}h[0-5]\d(?!\d)m?(?:in(?:ute)?s?)?\b"
_OF_HOUR: Final = r"(?:half|(?:a\s+)?quarter\s+of|three\s+quarters\s+of)\s+an\s+hour\b"
DURATION: Final = rf"(?:{_CLOCK}|{_OF_HOUR}|{_BARE_PART}(?:\s*,?\s*(?:and\s+)?{_BARE_PART})*)"
_HUGE: Final = Fraction(10**15)
_MINUTES: Final = {"d": 1440, "h": 60, "m": 1}


def number(text: str) -> str | float:
    """A written number: words, "2k" and "0,01" become figures, the rest stays as it is for `tools.spec`."""
    word = " ".join(text.lower().split())
    if minus := re.match(_MINUS, word):
        return f"-{number(word[minus.end() :])}"
    if re.search(r"[a-df-jl-z]", word):
        return plain(_spelt(word))
    word = word.replace(" ", "")
    if word.endswith("k"):
        return plain(_figure(word[:-1]) * 1000)
    return word.replace(",", ".") if re.match(r"[-+]?0,", word) else word


def value(text: str) -> Fraction:
    """A written number as a number."""
    return _figure(str(number(text)))


def minutes(text: str) -> int | float:
    """A length of time, as `DURATION` matches it, in minutes."""
    word = " ".join(text.lower().split())
    if clock := re.fullmatch(r"(\d+)[:h]\s?(\d\d)\D*", word):
        return int(clock[1]) * 60 + int(clock[2])
    if re.fullmatch(_OF_HOUR, word):
        return {"h": 30, "t": 45}.get(word[0], 15)
    total = Fraction(0)
    for part in _PART.finditer(word):
        count = Fraction(1) if part["count"] in {"a", "an"} else value(part["count"])
        halves = sum(part[name] is not None for name in ("half", "more"))
        total += (count + Fraction(halves, 2)) * _MINUTES[part["unit"][0]]
    return plain(total)


def plain(number: Fraction) -> int | float:
    """The number without its fraction's bar; what no parameter takes anyway is cut down."""
    number = max(-_HUGE, min(_HUGE, number))
    return int(number) if number.denominator == 1 else float(number)


def _figure(text: str) -> Fraction:
    bare = re.sub(r"[\s_]", "", text.lower())
    bare = bare.replace(",", ".") if re.match(r"[-+]?0,", bare) else bare.replace(",", "")
    digits, _, exponent = bare.partition("e")
    return Fraction(f"{digits}e{max(-99, min(99, int(exponent or 0)))}")


def _spelt(text: str) -> Fraction:
    """ "two hundred and fifty thousand", "half a million", "1.5 million": what stands before a scale is its factor."""
    total, current = Fraction(0), Fraction(text in {"a", "an"})
    glued = re.sub(rf"({_any(_TENS)})(?={_any(_ONES)})", r"\1 ", text)
    for word in re.split(r"[\s-]+", glued):
        if word in {"thousand", "million"}:
            total, current = total + (current or Fraction(1)) * _SCALES[word], Fraction(0)
        elif word in _SCALES:
            current = (current or Fraction(1)) * _SCALES[word]
        elif word in _VALUES:
            current += _VALUES[word]
        elif word[0] not in "ao":  # "a", "an", "and", "of" add nothing
            current += value(word)
    return total + current
