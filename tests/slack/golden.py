"""Every payload that the bot can send, built from real use cases over a real database, with fixed ids and times.

`python -m tests.slack.golden` writes `tests/slack/golden/*.json`, `docs/gallery.md` and `docs/pictures/*.svg`. The
cards come from `World`: the proposals are made, voted on, run by the fake engine and reconciled; only a run's progress
is put in by hand.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import tempfile
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from bot import digests, wording
from bot.accounts import spend
from bot.approvals.deciding import Hand
from bot.approvals.pricing import Pricing
from bot.approvals.proposing import Asked, Proposing
from bot.cards import Card
from bot.core.periods import month
from bot.core.policy import Policy
from bot.core.proposal import Proposal, Verdict
from bot.slack import blocks, conversation, digest_blocks, home, modals, text
from tests.slack import pictures
from tests.world import Bot, Clock, FixedPolicy, World
from tools.engines.base import Standing
from tools.progress import Progress
from tools.rates import RateCard
from tools.spec import parse_spec

Json = dict[str, Any]

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
GALLERY = HERE.parents[1] / "docs" / "gallery.md"
PICTURES = HERE.parents[1] / "docs" / "pictures"

TEAM, CHANNEL, THREAD = "T0SIGNAL", "C0TRAIN", "1795521600.000100"
RAE, ANN, BOB, CLEO = "U0RAE", "U0ANN", "U0BOB", "U0CLEO"
UTC = ZoneInfo("UTC")
POLICY = Policy.parse(
    {
        "approvers": [ANN, BOB, CLEO],
        "approver_groups": [],
        "quorum": [
            {"up_to_dollars": "1", "up_to_gpus": 0, "approvals": 1},
            {"up_to_dollars": "50", "approvals": 2},
            {"recipes": ["distilgpt2"], "up_to_gpus": 1, "approvals": 2},
            {"approvals": "never"},
        ],
        "budget_per_month": "1000",
        "open_proposals_per_person": 50,
        "escalate_to": [CLEO],
    }
)
NO_GPU_RATE = RateCard.parse(
    {"versions": [{"version": "cpu-only", "effective_from": "2026-01-01T00:00:00Z", "cpu_core_hour": "0.05"}]}
)
PROMPTS = {
    "digits": "train digits for 3 epochs with lr 2e-3, please",
    "mnist": "mnist for 5 epochs; I want to see whether a longer run still helps",
    "distilgpt2": "fine-tune distilgpt2 on our text on the GPU",
}
HOSTILE = (
    "<!channel> <!here|here> <@U1> <@U0ANN|Ann> <#C1|general> <!subteam^S1> @here @channel @everyone\n"
    "<https://evil.example/pay|Approved by Ann> https://evil.example [click](https://evil.example) "
    "javascript:alert(1)\n"
    "*Approved* _by_ ~nobody~ `code` ```fence``` > quote & &lt;!channel&gt; :white_check_mark:\n"
    "\u202egnp.live\u202c \u2066isolated\u2069 zero\u200bwidth \x00\x07\x1b[31mred\r\nline\u2028line\n"
)
HOSTILE += "0123456789" * ((10_000 - len(HOSTILE)) // 10 + 1)
HOSTILE = HOSTILE[:10_000]
HALFWAY = Progress(
    step=202, steps=450, epoch=4, epochs=8, loss=0.412, samples_per_second=911.0, eta_seconds=74.0
)  # fmt: skip


def curve(epochs: int) -> Progress:
    """A finished run's progress."""
    rows = tuple(
        {
            "epoch": float(epoch),
            "train_loss": 2.0 / (epoch + 1),
            "val_loss": 2.1 / (epoch + 1) + 0.01,
            "train_accuracy": 1 - 0.6 / (epoch + 1),
            "val_accuracy": 1 - 0.7 / (epoch + 1),
        }
        for epoch in range(1, epochs + 1)
    )
    return replace(HALFWAY, step=450, epoch=epochs, epochs=epochs, eta_seconds=0.0, epoch_metrics=rows)


class StillClock(Clock):
    """Goes on only when it is told to, so that how often the code looks changes no golden file."""

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Made:
    """Cards by state, and the other surfaces."""

    cards: dict[str, Card] = field(default_factory=dict)
    more: dict[str, Json] = field(default_factory=dict)


class Room:
    """One workspace: a person asks, people decide, the engine runs. Ids follow from the events' names."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self.made = Made()
        self._events = 0

    async def propose(
        self, recipe: str = "digits", prompt: str = "", by: Proposing | None = None, **given: object
    ) -> Proposal:
        self._events += 1
        self.bot.world.clock.forward(seconds=1)
        asked = Asked(
            team=TEAM,
            channel=CHANNEL,
            thread=THREAD,
            requester=RAE,
            prompt=prompt or PROMPTS[recipe],
            event_id=f"golden-{self._events}",
        )
        return await (by or self.bot.proposing).propose(asked, parse_spec(recipe, given))

    async def approve(self, proposal: Proposal, *voters: str) -> None:
        for voter in voters:
            self.bot.world.clock.forward(seconds=1)
            await self.bot.deciding.decide(hand(voter), proposal.number, Verdict.APPROVE)

    async def keep(self, state: str, proposal: Proposal, **changed: Any) -> Card:
        """The card as it stands now, under this name."""
        card = await self.bot.cards.card(proposal.id)
        self.made.cards[state] = replace(card, **changed)
        return self.made.cards[state]

    async def run(self, proposal: Proposal, *voters: str) -> None:
        await self.approve(proposal, *voters)
        await self.bot.settle(4)

    def ends(self, exit_code: int = 0, **progress: Any) -> None:
        """What runs ends, with this as its trainer's last word."""
        engine = self.bot.world.engine
        running = [name for name, seen in engine.jobs.items() if seen.standing is Standing.RUNNING]
        engine.finish(exit_code)
        for name in running:
            seen = engine.jobs[name]
            engine.jobs[name] = replace(seen, progress=replace(seen.progress, **progress))


def hand(user: str) -> Hand:
    return Hand(team=TEAM, channel=CHANNEL, user=user)


async def _pending(room: Room) -> None:
    first = await room.propose(epochs=3, lr="2e-3")
    await room.keep("pending", first)
    await room.bot.deciding.revise(hand(BOB), first.number, {"lr": "3e-4", "max_runtime_minutes": 10})
    await room.keep("revised", first)
    two = await room.propose("mnist", epochs=5, max_runtime_minutes=600)
    await room.approve(two, ANN)
    await room.keep("one-of-two", two)
    await room.keep("nobody-may", two, needed=None, able=())
    hostile = await room.propose(prompt=HOSTILE, seed=7)
    await room.keep("hostile-prompt", hostile)


async def _unpriced(room: Room) -> None:
    bot = room.bot
    pricing = Pricing(bot.store, bot.world.engine, NO_GPU_RATE, UTC)
    unlimited = POLICY.model_copy(update={"budget_per_month": None})  # a budget would refuse what has no rate
    proposing = Proposing(bot.store, pricing, FixedPolicy(unlimited))
    await room.keep("unpriced-gpu", await room.propose("distilgpt2", by=proposing, gpus=1))


async def _running(room: Room) -> None:
    bot = room.bot
    first, second, third = [await room.propose(seed=seed) for seed in (1, 2, 3)]
    await room.run(first, ANN)
    await room.keep("running", first, progress=HALFWAY)
    await room.keep("running-in-trouble", first, progress=HALFWAY, trouble="The engine does not answer. <!here>")
    await room.run(second, BOB)
    await room.approve(third, ANN)
    await room.keep("queued", third, ahead=1)
    bot.world.engine.slots = 1  # what the cancelled one frees is not given on yet
    await bot.deciding.cancel(hand(RAE), first.number)
    await room.keep("cancelling", first, progress=HALFWAY)
    await bot.settle(4)
    await room.keep("cancelled", first)
    room.ends(result={"val_accuracy": 0.9722, "val_loss": 0.0941, "train_loss": 0.0312}, **_epochs(8))
    await bot.settle(4)
    await room.keep("succeeded", second, progress=curve(8))
    await room.keep("succeeded-long", second, progress=curve(57))
    bot.world.engine.slots = 2
    await bot.settle(4)
    room.ends(2, error=f"The data folder has no digits.csv. {HOSTILE[:200]}")
    await bot.settle(4)
    await room.keep("failed", third)


def _epochs(count: int) -> dict[str, Any]:
    return {"epoch_metrics": curve(count).epoch_metrics}


async def _with_history(room: Room) -> None:
    for seed in range(10, 16):
        await room.run(await room.propose(seed=seed), CLEO)
        room.ends()
        await room.bot.settle(3)
    estimated = await room.propose(seed=20)
    await room.keep("pending-with-history", estimated)
    await room.run(estimated, ANN)
    room.ends(result={"val_accuracy": 0.98})
    await room.bot.settle(3)
    await room.keep("succeeded-with-history", estimated, progress=curve(8))


async def _decided(room: Room) -> None:
    bot = room.bot
    rejected, withdrawn, expired = [await room.propose(seed=seed) for seed in (31, 32, 33)]
    reason = "Too long for a first look; 2 epochs will do. <!channel> *bold*"
    await bot.deciding.decide(hand(ANN), rejected.number, Verdict.REJECT, reason=reason)
    await room.keep("rejected", rejected)
    await bot.deciding.withdraw(hand(RAE), withdrawn.number)
    await room.keep("withdrawn", withdrawn)
    await _surfaces(room)
    bot.world.clock.forward(hours=25)
    await bot.settle(2)
    await room.keep("expired", expired)


def _numbered(card: Card, number: int) -> Card:
    return replace(card, proposal=replace(card.proposal, id=f"{number:016x}", number=number))


async def _surfaces(room: Room) -> None:
    """Home page and digest, of the day's rows."""
    bot, more = room.bot, room.made.more
    now = await bot.store.now()
    period = month(now.date(), UTC)
    budget = await bot.pricing.budget(POLICY, TEAM, CHANNEL, now)
    said = "\n".join(wording.spend_lines(await spend(bot.store, TEAM, period, now), budget))
    pending = [await bot.cards.card(one.id) for one in await bot.store.pending_of_team(TEAM)]
    jobs = [await bot.cards.card(job.proposal_id) for job in await bot.store.jobs(TEAM, limit=20)]
    more["home"] = home.view(user=ANN, pending=pending, jobs=jobs, policy=POLICY, spend=said)
    more["home-requester"] = home.view(user=RAE, pending=[], jobs=jobs, policy=POLICY, spend=said)
    many = [_numbered(card, 100 * lap + index) for lap in range(8) for index, card in enumerate(pending)]
    more["home-full"] = home.view(user=ANN, pending=many, jobs=jobs * 4, policy=POLICY, spend=said)
    more["home-empty"] = home.view(user=RAE, pending=[], jobs=[], policy=Policy(), spend="Nothing was spent.")
    digest = await digests.build(bot.store, bot.pricing, FixedPolicy(POLICY), TEAM, CHANNEL, now.date())
    more["digest"] = digest_blocks.message(digest, UTC)
    quiet = await digests.build(bot.store, bot.pricing, FixedPolicy(POLICY), TEAM, CHANNEL, date(2026, 11, 1))
    more["digest-quiet"] = digest_blocks.message(quiet, UTC)


async def _everything(url: str) -> Made:
    world = World(url, clock=StillClock(), policy=POLICY)
    world.surface.teams = (TEAM,)
    async with world.bot() as bot:
        room = Room(bot)
        for part in (_pending, _unpriced, _running, _with_history, _decided):
            await part(room)
        return room.made


@cache
def made() -> Made:
    """All of it, built once a process."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_everything(f"sqlite:///{folder}/golden.db"))


def long_manifest(card: Card, lines: int) -> Card:
    """The same card with a manifest of that many environment lines, some of them strange."""
    manifest = {
        **card.proposal.offer.manifest,
        "env": [f"VARIABLE_{index}=<value {index}> & " + "é```\u202e" * (index % 4) for index in range(lines)],
        "one_long_line": "x" * 9000,
    }
    offer = replace(card.proposal.offer, manifest=manifest)
    return replace(card, proposal=replace(card.proposal, offer=offer, digest=offer.digest))


def answer(said: str) -> list[Json]:
    """The messages of one answer of the agent, as `bot.slack.conversation` posts them."""
    return [
        {"text": part, "blocks": [{"type": "markdown", "text": part}, conversation.feedback_block()]}
        for part in text.split(text.from_model(said))
    ]


def _modals(cards: dict[str, Card]) -> dict[str, Json]:
    long = long_manifest(cards["pending"], 2000)
    return {
        "modal-reject": modals.reject(cards["pending"]),
        "modal-edit": modals.edit(cards["pending"]),
        "modal-edit-language-model": modals.edit(cards["unpriced-gpu"]),
        "modal-rerun": modals.rerun(cards["succeeded"]),
        "modal-details": modals.details(cards["pending"]),
        "modal-details-hostile": modals.details(cards["hostile-prompt"]),
        "modal-details-last-page": modals.details(long, 999),
    }


@cache
def payloads() -> dict[str, Json]:
    """Name → message or view."""
    found = {f"card-{state}": blocks.card(card) for state, card in made().cards.items()}
    said = "**Done.** Proposal 1 is waiting; see [the page](https://evil.example). @channel\n\n```\nlr  0.002\n```"
    return {**found, **made().more, **_modals(made().cards), "answer": answer(said)[0]}


def written(payload: Json) -> str:
    return json.dumps(payload, indent=1, ensure_ascii=False) + "\n"


# -- the gallery ------------------------------------------------------------------------------------------------------
def gallery() -> str:
    """Each payload as a person reads it, and its buttons."""
    parts = [
        "# Gallery",
        "",
        "Every card, page and form of Signalbox in Slack as text, made by `python -m tests.slack.golden` with the\n"
        "golden files of the tests. Buttons are in [brackets].",
    ]
    for name, payload in payloads().items():
        parts += ["", f"## {name}", "", "````text", *_readable(payload), "````"]
    return "\n".join(parts) + "\n"


def _readable(payload: Json, most: int = 60) -> list[str]:
    lines = [payload["title"]["text"]] if payload.get("type") == "modal" else []
    for block in payload["blocks"]:
        lines += _block(block)
    if payload.get("submit"):
        lines.append(f"[{payload['submit']['text']}] [{payload['close']['text']}]")
    shown = [line if len(line) <= 400 else f"{line[:400]}…" for line in lines]
    return shown if len(shown) <= most else [*shown[:most], f"(… {len(shown) - most} more lines)"]


def _block(block: Json) -> list[str]:
    match block["type"]:
        case "actions":
            return [" ".join(f"[{one['text']['text']}]" for one in block["elements"])]
        case "context_actions":
            return ["[Helpful] [Not helpful]"]
        case "divider":
            return ["—"]
        case "input":
            filled = block["element"].get("initial_value", "")
            hint = f"  ({block['hint']['text']})" if block.get("hint") else ""
            return [f"{block['label']['text']}: {filled}{hint}"]
        case "data_visualization":
            series = ", ".join(one["name"] for one in block["chart"].get("series", []))
            return [f"(chart: {block['title']}; {block['chart']['type']}; {series})"]
        case "data_table":
            return [f"(table: {block['caption']})", *[" | ".join(map(_words, row)) for row in block["rows"]]]
        case "image":
            return [f"(picture: {block['alt_text']})"]
        case _:
            return [line for line in _plain(_words(block)).split("\n") if line.strip()]


def _words(node: Any) -> str:
    """All text below a block, in order."""
    if isinstance(node, list):
        return "\n".join(map(_words, node))
    if not isinstance(node, dict):
        return ""
    if node.get("type") == "user":
        return f"@{node['user_id']}"
    if str(node.get("type", "")).startswith("rich_text_") and node["type"] != "rich_text_list":
        return "".join(map(_words, node["elements"]))
    inside = [node.get(name) for name in ("text", "fields", "elements", "accessory") if node.get(name) is not None]
    return "\n".join(one if isinstance(one, str) else _words(one) for one in inside)


def _plain(marked: str) -> str:
    dated = re.sub(r"<!date\^[^|>]*\|([^>]*)>", r"\1", marked)
    return html.unescape(re.sub(r"<([@#])([^>|]+)(?:\|[^>]*)?>", r"\1\2", dated)).replace("````", "'```")


def main() -> None:
    """Write all files anew."""
    _fill(GOLDEN, "json", {f"{name}.json": written(payload) for name, payload in payloads().items()})
    _fill(PICTURES, "svg", pictures.drawn(payloads()))
    GALLERY.write_text(gallery())
    print(f"{len(payloads())} payloads; {len(pictures.PICTURES)} pictures; {GALLERY}")


def _fill(folder: Path, kind: str, files: dict[str, str]) -> None:
    """The folder holds these files of its kind and no older ones."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob(f"*.{kind}"):
        old.unlink()
    for name, content in files.items():
        (folder / name).write_text(content)


if __name__ == "__main__":
    main()
