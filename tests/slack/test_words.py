"""Free text: nothing that it says mentions, links, formats or disappears."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.slack import text
from bot.slack.lint_rules import markup
from tests.slack.states import HOSTILE

MARKS = st.sampled_from(
    ["<!channel>", "<@U1>", "<@U1|ann>", "<#C1|general>", "<", ">", "&", "|", "!", "@here", "@everyone", "https://a.b/c",
     "<https://a.b|x>", "[x](http://a.b)", "```", "`", "*", "_", "~", "\n", "\r\n", "\u202e", "\u200b", "\x00", "&lt;",
     "<!subteam^S1>", "<!date^1^{date}|x>", ":tada:", "&amp;", "\u2028", "é", "🙂", " ", "x" * 50]
)  # fmt: skip
WORDS = st.lists(st.one_of(MARKS, st.text(max_size=8)), max_size=40).map("".join)
MENTION = re.compile(r"<[@#!]")
LINK = re.compile(r"https?://|mailto:|www\.\w")


@given(WORDS)
def test_whatever_is_said_carries_no_markup(said: str) -> None:
    for safe in (text.escape(said), text.from_model(said)):
        assert not list(markup(safe, "")) and not LINK.search(safe)
    bare = text.literal(said)
    assert not MENTION.search(bare) and not LINK.search(bare)
    for one in (text.escape(said), bare):
        assert not re.search(r"@(here|channel|everyone)\b", one)
        assert not set(one) & {"\x00", "\u202e", "\u200b", "\u2028", "\r"}


@given(WORDS, st.integers(80, 300))
def test_a_split_answer_keeps_every_word_within_the_limit(said: str, limit: int) -> None:
    parts = text.split(said, limit)
    assert parts and all(0 < len(part) <= limit for part in parts)

    def letters(of: str) -> str:
        return re.sub(r"[\s`~]", "", of)

    assert letters("".join(parts)).replace(letters(text.NOTHING), "") == letters(said).replace(
        letters(text.NOTHING), ""
    )


def test_a_code_block_stays_whole_where_it_can() -> None:
    block = "```python\n" + "print(1)\n" * 8 + "```"
    said = "one two three " * 5 + "\n\n" + block + "\n\nafter"
    parts = text.split(said, 120)
    assert any(block in part for part in parts)
    assert "\n\n".join(part.strip() for part in parts).split() == said.split()


def test_a_long_code_block_is_closed_and_opened_again() -> None:
    parts = text.split("```py\n" + "\n".join(f"line_{index}" for index in range(100)) + "\n```", 200)
    assert len(parts) > 3
    for part in parts:
        assert part.startswith("```py\n") and part.endswith("\n```") and part.count("```") == 2
    assert [line for part in parts for line in part.split("\n") if "line" in line] == [f"line_{n}" for n in range(100)]


def test_it_is_cut_between_paragraphs_rather_than_lines() -> None:
    said = "\n\n".join("a line\nof a paragraph" for _ in range(10))
    for part in text.split(said, 100):
        assert part.startswith("a line") and part.endswith("of a paragraph")


def test_nothing_is_cut_in_silence() -> None:
    assert text.shortened("abc " * 1000, 100).endswith("more characters)")
    assert len(text.shortened("x" * 10_000, 100)) <= 100
    lines = [f"<@U{index}>" for index in range(100)]
    cut = text.fitting_lines(lines, 200)
    assert len(cut) <= 200 and re.search(r"… and \d+ more lines$", cut) and not list(markup(cut, ""))
    shown = cut.count("<@")
    assert f"and {100 - shown} more" in cut
    assert text.fitting_lines(lines[:3], 200) == "\n".join(lines[:3])


def test_a_model_keeps_its_formatting_but_not_its_links() -> None:
    said = text.from_model("**bold** [docs](https://evil.example) <!here> a < b & c\n> quote\n```\ncode")
    assert said == "**bold** docs here a &lt; b & c\n> quote\n```\ncode\n```"


def test_a_reader_sees_what_was_taken_out() -> None:
    assert text.escape("see https://evil.example/x for more") == f"see {text.LINK_GONE} for more"
    assert "@boss" in text.literal(HOSTILE) and "https" not in text.literal(HOSTILE)


@pytest.mark.parametrize(
    ("user", "shown"), [("U0ANN", "<@U0ANN>"), ("ann", "ann"), ("U1> <!here", "U1&gt; &lt;!here"), ("", "")]
)
def test_only_an_id_is_a_mention(user: str, shown: str) -> None:
    assert text.mention(user) == shown


def test_our_sentences_name_only_people_we_know() -> None:
    said = text.named("It takes U0ANN or U0BOB; “U0EVIL <!here>” is not one.", ["U0ANN", "U0BOB", "rae"])
    assert said == "It takes <@U0ANN> or <@U0BOB>; “U0EVIL here” is not one."


def test_what_a_person_typed_is_read_as_words() -> None:
    typed = "<@U0BOT> train <https://hf.co/x|x> for <#C1|general> &amp; 1 &lt; 2"
    assert text.from_person(typed, "U0BOT") == "train x for general & 1 < 2"
