"""Free text on its way into Slack and out of it: escaped, without mentions and links, never cut in silence. Pure.

Everything that a person, a model, a log or a run's name says is untrusted. Three ways lead into a payload: `escape` for
mrkdwn, `literal` for plain and rich text (which Slack shows as it is), `from_model` for `markdown` blocks. Where a card
shows somebody's own words it uses rich text, so that their `*`, `` ` `` and `:emoji:` cannot dress up as ours.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Collection, Iterator
from datetime import UTC, datetime

PART_LIMIT = 11_000  # characters of one message's markdown; Slack takes 12,000
LINK_GONE = "(link removed)"
NOTHING = "(no words)"
NESTED = 5  # links inside links that are looked through

_KEPT = {"\n", "\t"}
_DROPPED = {"Cc", "Cf", "Cs", "Co", "Cn"}  # control, formatting (bidi and zero-width too), halves, private, unassigned
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TAG = re.compile(r"<([@#!][^<>|]*)(?:\|([^<>]*))?>|<([a-z][a-z0-9+.-]*:[^<>|]+)(?:\|([^<>]*))?>", re.IGNORECASE)
_MARKDOWN_LINK = re.compile(r"!?\[([^\[\]]*)\]\(\s*[^()\s]*(?:\s[^()]*)?\)")
_IN_LINK = r"[^\s()\[\]<>]"
_BARE_LINK = re.compile(
    rf"(?:https?|ftp|file|slack|javascript)://{_IN_LINK}*|mailto:{_IN_LINK}*|www\.(?=\w){_IN_LINK}+", re.IGNORECASE
)
_SHOUT = re.compile(r"@(?=(?:here|channel|everyone|group)\b)", re.IGNORECASE)
_OPENING = re.compile(r"<(?=[@#!/a-z])", re.IGNORECASE)
_ENTITY = re.compile(r"&(?=#?\w+;)")
_PERSON = re.compile(r"[UW][A-Z0-9]+")
_FENCE = re.compile(r"^ {0,3}(`{3,40}(?!`)|~{3,40}(?!~))")  # a longer run could not be repeated within a part


def clean(text: str) -> str:
    """Without control, invisible and bidirectional characters; `@here` and its like taken apart."""
    lines = re.sub("\r\n?|[\u2028\u2029\x0b\x0c\x85]", "\n", text)
    kept = "".join(char for char in lines if char in _KEPT or unicodedata.category(char) not in _DROPPED)
    return _SHOUT.sub("@ ", kept)


def literal(text: str) -> str:
    """For plain and rich text, which Slack shows as it is: clean, tags as their labels, links gone."""
    bare = _bare(text)
    return _OPENING.sub("‹", bare)


def escape(text: str) -> str:
    """For mrkdwn: as `literal`, then `&`, `<` and `>`, which are Slack's only special characters."""
    bare = _bare(text)
    return bare.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def from_model(text: str) -> str:
    """A model's markdown for a `markdown` block: formatting stays; links, mentions and tags go; fences are closed."""
    safe = _ENTITY.sub("&amp;", _bare(text)).replace("<", "&lt;")
    mark = ""
    for line in safe.split("\n"):
        mark = _after(line, mark)
    return f"{safe}\n{mark}" if mark else safe


def from_person(text: str, bot_user: str) -> str:
    """What a person typed, as words: the bot's own mention gone, other tags as their labels, entities as characters.

    Control characters go too: no keyboard makes them, and a database may not take them.
    """

    def plain(match: re.Match[str]) -> str:
        mention, label, link, shown = match.groups()
        if mention == f"@{bot_user}":
            return " "
        return label or shown or link or mention or ""

    return _CONTROL.sub("", html.unescape(_TAG.sub(plain, text))).strip()


def shortened(text: str, limit: int) -> str:
    """One line of at most `limit` characters that says how much there is."""
    return fitting(" ".join(text.split()), limit, gap="")


def fitting(text: str, limit: int, gap: str = "\n") -> str:
    """At most `limit` characters; what is left out is counted at the end."""
    if len(text) <= limit:
        return text
    room = limit - len(f"{gap}… ({len(text):,} more characters)")
    return f"{text[:room]}{gap}… ({len(text) - room:,} more characters)"


def fitting_lines(lines: Collection[str], limit: int, what: str = "lines") -> str:
    """As many whole lines as fit, then how many do not. For text with markup, which must not be cut inside a tag."""
    room = limit - len(f"\n… and {len(lines):,} more {what}")
    shown: list[str] = []
    for line in lines:
        if sum(map(len, shown)) + len(shown) + len(line) > room:
            return "\n".join([*shown, f"… and {len(lines) - len(shown):,} more {what}"])
        shown.append(line)
    return "\n".join(shown)


def code(text: str) -> str:
    """One line of mrkdwn code; a backtick cannot end it."""
    return f"`{escape(' '.join(text.split())).replace('`', 'ˋ') or ' '}`"


def fenced(lines: str) -> str:
    """Lines of mrkdwn code; backticks in them cannot end it."""
    return f"```\n{escape(lines).replace('```', 'ˋˋˋ')}\n```"


def is_person(name: str) -> bool:
    """Whether this is a Slack user's id. A terminal's names are not, nor is anything with markup in it."""
    return _PERSON.fullmatch(name) is not None


def mention(user: str) -> str:
    """A person in mrkdwn, by the id of a signed payload; any other name is shown as text."""
    return f"<@{user}>" if is_person(user) else escape(user)


def channel(name: str) -> str:
    """A channel in mrkdwn; a direct message has no name that others could read."""
    if re.fullmatch(r"D[A-Z0-9]+", name):
        return "a direct message"
    return f"<#{name}>" if re.fullmatch(r"[CG][A-Z0-9]+", name) else escape(name)


def named(sentence: str, people: Collection[str]) -> str:
    """One of our own sentences in mrkdwn, with these people's ids as mentions."""
    found = [user for user in people if is_person(user)]
    safe = escape(sentence)
    if not found:
        return safe
    return re.sub(rf"\b(?:{'|'.join(map(re.escape, found))})\b", lambda match: f"<@{match[0]}>", safe)


def moment(epoch: float, fallback: str) -> str:
    """A time that Slack shows in each reader's own zone."""
    return f"<!date^{int(epoch)}^{{date_short_pretty}} at {{time}}|{fallback}>"


def local(when: datetime) -> str:
    """A moment in mrkdwn, in each reader's own zone; in UTC where that cannot be shown."""
    return moment(when.timestamp(), f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC")


def _bare(text: str) -> str:
    """Clean words without tags and links; what taking those out puts together is taken apart again."""
    return _SHOUT.sub("@ ", _without_links(_without_tags(clean(text))))


def _without_tags(text: str) -> str:
    """`<@U1|ann>` is “@ann”, `<!channel>` is “channel”, `<https://x|here>` is “here”."""

    def plain(match: re.Match[str]) -> str:
        mention, label, _, shown = match.groups()
        if mention is None:
            return shown or LINK_GONE
        name = label or mention[1:]
        return f"{'' if mention[0] == '!' else mention[0]}{name}"

    return _TAG.sub(plain, text)


def _without_links(text: str) -> str:
    for _ in range(NESTED):
        text, found = _MARKDOWN_LINK.subn(r"\1", text)
        if not found:
            break
    return _BARE_LINK.sub(LINK_GONE, text)


def split(text: str, limit: int = PART_LIMIT) -> list[str]:
    """Parts of at most `limit` characters: cut between paragraphs, else lines, else words. Nothing is left out.

    A code block stays in one part if it fits in one; a longer one is closed and opened again.
    """
    parts: list[list[str]] = []
    current: list[str] = []
    for piece in _pieces(text, limit):
        if current and sum(map(len, current)) + len(current) + len(piece) > limit:
            border = _border(current)
            parts.append(current[:border])
            current = current[border:]
            while current and not current[0].strip():
                current = current[1:]
            if current and sum(map(len, current)) + len(current) + len(piece) > limit:
                parts.append(current)
                current = []
        current.append(piece)
    joined = ["\n".join(part).strip("\n") for part in [*parts, current]]
    return [part for part in joined if part.strip()] or [NOTHING]


def _border(pieces: list[str]) -> int:
    """Where to cut: at the last blank line of the second half, else at the end."""
    blanks = [index for index, piece in enumerate(pieces) if not piece.strip() and index > len(pieces) // 2]
    return blanks[-1] if blanks else len(pieces)


def _pieces(text: str, limit: int) -> Iterator[str]:
    """Lines, with each code block as one piece if it fits."""
    block: list[str] = []
    mark = ""
    for line in text.split("\n"):
        after = _after(line, mark)
        if not mark and not after:
            yield from _short(line, limit)
            continue
        block.append(line)
        if not after:
            yield from _fenced(block, mark, limit)
            block = []
        mark = after
    if block:
        yield from _fenced(block, mark, limit)


def _after(line: str, mark: str) -> str:
    """The fence that is open after this line, given the one that is open before it."""
    found = _FENCE.match(line)
    if not found:
        return mark
    if not mark:
        return found[1]
    closes = found[1][0] == mark[0] and len(found[1]) >= len(mark) and not line.strip().strip(mark[0])
    return "" if closes else mark


def _fenced(block: list[str], mark: str, limit: int) -> Iterator[str]:
    whole = "\n".join(block)
    if len(whole) <= limit:
        yield whole
        return
    opening = block[0] if len(block[0]) < limit // 4 else mark
    closed = len(block) > 1 and not _after(block[-1], mark)
    inside = block[1 : -1 if closed else None] if opening == block[0] else [block[0][len(mark) :], *block[1:]]
    room = limit - len(opening) - len(mark) - 2
    held: list[str] = []
    for line in (short for long in inside for short in _short(long, room)):
        if held and sum(map(len, held)) + len(held) + len(line) > room:
            yield "\n".join([opening, *held, mark])
            held = []
        held.append(line)
    yield "\n".join([opening, *held, mark])


def _short(line: str, limit: int) -> Iterator[str]:
    """A line in pieces of at most `limit`, cut after a sentence or between words where there are any."""
    while len(line) > limit:
        head = line[:limit]
        cut = max(head.rfind(". ") + 1, head.rfind(" ")) if " " in head[limit // 2 :] else limit
        yield line[:cut].rstrip() or line[:cut]
        line = line[cut:].lstrip(" ") if cut < limit else line[cut:]
    yield line
