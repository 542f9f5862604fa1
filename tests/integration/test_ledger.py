"""What a messy history cost, to the last digit: digests, budgets and exports read the same intervals."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from bot import ledger
from bot.accounts import spend
from bot.core.job import JobPhase
from bot.core.periods import day, days, month
from bot.store.audit import verify
from tests.world import TEAM, Bot, World
from tools.cost import Amount, Interval, Resources

BERLIN = ZoneInfo("Europe/Berlin")
CPU = Resources(cpu_cores=Decimal(4))
GPU = Resources(cpu_cores=Decimal(4), gpus=1, gpu_product="L4")
H100 = Resources(cpu_cores=Decimal(4), gpus=1, gpu_product="H100")
NOW = datetime(2026, 11, 1, 0, 0, tzinfo=UTC)

# Berlin's clock goes back on 25 October, 03:00 → 02:00, so that its day is 24 Oct 22:00 to 25 Oct 23:00 UTC, 25 hours.
#
# who   what              from (UTC)      to              hours          $/h    dollars   on the local day
# ann   preempted, CPU    24 Oct 21:00    24 Oct 23:30    1.0 + 1.5      0.20   0.50      0.20 on 24th, 0.30 on 25th
# ann   its retry, CPU    25 Oct 00:00    25 Oct 02:00    2.0            0.20   0.40      0.40 on 25th (02:00 is twice)
# ann   cancelled, L4     25 Oct 22:50    25 Oct 23:20    1/6 + 1/3      0.36   0.18      0.06 on 25th, 0.12 on 26th
#       (the first ten minutes pull the image; the GPU is held, so they cost)
# bob   end repaired, CPU 26 Oct 08:00    26 Oct 09:30    1.5            0.30   0.45      0.45 on 26th, new rates "r2"
# bob   no rate, H100     26 Oct 10:00    26 Oct 11:00    1.0            –      unpriced  on 26th
# cleo  still running     31 Oct 22:30    –               0.5 + 1.0      0.20   0.30      0.10 on 31 Oct, 0.20 on 1 Nov
#       (until NOW, 1 Nov 00:00 UTC; Berlin is at UTC+1 then, so midnight was at 23:00)
#
# 24 Oct: 0.20   25 Oct: 0.30 + 0.40 + 0.06 = 0.76   26 Oct: 0.12 + 0.45 = 0.57   31 Oct: 0.10   October: 1.63
# 1 Nov: 0.20. cleo's ceiling is 240 min × 0.20 $/h = 0.80, of which 0.30 is spent: 0.50 is committed.
HISTORY = [
    (
        "ann",
        {},
        [(CPU, "r1", "0.20", "24 21:00", "24 23:30"), (CPU, "r1", "0.20", "25 00:00", "25 02:00")],
        "succeeded",
    ),
    ("ann", {}, [(GPU, "r1", "0.36", "25 22:50", "25 23:20")], "cancelled"),
    ("bob", {}, [(CPU, "r2", "0.30", "26 08:00", "26 09:30 repaired")], "failed"),
    ("bob", {}, [(H100, "r2", None, "26 10:00", "26 11:00")], "succeeded"),
    ("cleo", {"max_runtime_minutes": 240}, [(CPU, "r1", "0.20", "31 22:30", None)], "running"),
]


def at(text: str) -> datetime:
    return datetime.strptime(f"2026-10-{text[:8]}+0000", "%Y-%m-%d %H:%M%z")


async def recorded(bot: Bot) -> None:
    """The history, by the one way that jobs change."""
    for requester, parameters, attempts, phase in HISTORY:
        proposal = await bot.propose(requester, **parameters)
        await bot.approve(proposal, next(one for one in ("ann", "bob", "cleo") if one != requester))
        job = await bot.store.job(proposal.id)
        assert job is not None
        intervals = tuple(
            Interval(
                attempt=number,
                started_at=at(begun),
                ended_at=at(ended) if ended else None,
                resources=resources,
                rate_version=version,
                hourly=Amount(dollars=Decimal(rate)) if rate else Amount(unpriced=("GPU H100",)),
                estimated="repaired" in (ended or ""),
            )
            for number, (resources, version, rate, begun, ended) in enumerate(attempts, start=1)
        )
        last = intervals[-1].ended_at
        after = job.changed(
            phase=JobPhase(phase), started_at=intervals[0].started_at, finished_at=last, intervals=intervals
        )
        await bot.store.write(lambda writing, job=job, after=after: writing.move(job, after, kind="x", actor="test"))


async def test_every_day_and_month_costs_what_its_intervals_say(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        await recorded(bot)
        expected = {date(2026, 10, 24): "0.20", date(2026, 10, 25): "0.76", date(2026, 10, 26): "0.57"}
        expected |= {date(2026, 10, 27): "0", date(2026, 10, 31): "0.10", date(2026, 11, 1): "0.20"}
        for of, dollars in expected.items():
            found = await spend(bot.store, TEAM, day(of, BERLIN), NOW)
            assert found.total.dollars == Decimal(dollars), of
            assert found.total.unpriced == (("GPU H100",) if of == date(2026, 10, 26) else ())
        october = await spend(bot.store, TEAM, month(date(2026, 10, 24), BERLIN), NOW)
        assert october.total == Amount(dollars=Decimal("1.63"), unpriced=("GPU H100",))
        assert {name: amount.dollars for name, amount in october.by_requester} == {
            "ann": Decimal("1.08"),
            "bob": Decimal("0.45"),
            "cleo": Decimal("0.10"),
        }
        assert {name: amount.dollars for name, amount in october.by_device} == {
            "CPU": Decimal("1.45"),
            "L4": Decimal("0.18"),
            "H100": Decimal(0),
        }
        assert (await verify(bot.store)).whole


async def test_the_budget_counts_the_month_and_what_is_committed(url: str) -> None:
    async with World(url=url).bot() as bot:
        await recorded(bot)
        november = month(date(2026, 11, 1), BERLIN)
        spent, committed = (await bot.store.spending(TEAM, november, NOW)).of(None)
        assert (spent.dollars, committed) == (Decimal("0.20"), Decimal("0.50"))
        running = (await bot.store.open_jobs())[0].job
        apart = await bot.store.spending(TEAM, november, NOW, apart_from=running.proposal_id)
        assert apart.of(None)[1] == 0
        assert (await bot.store.spending("another team", november, NOW)).of(None) == (Amount(), Decimal(0))


async def test_an_export_adds_up_to_the_digest(url: str) -> None:
    async with World(url=url).bot() as bot:
        await recorded(bot)
        window = days(date(2026, 10, 25), date(2026, 10, 26), BERLIN, "export")
        found = ledger.lines(await bot.store.charges(window.start, window.end), window, NOW)
        assert sum(Decimal(line["dollars"]) for line in found) == Decimal("0.76") + Decimal("0.57")
        assert [line["seconds"] for line in found] == [
            f"{seconds}.000000" for seconds in (5400, 7200, 1800, 5400, 3600)
        ]
        assert [line["estimated"] for line in found] == [False, False, False, True, False]
        assert found[-1]["unpriced"] == ["GPU H100"] and found[-1]["dollars"] == "0"
        assert json.loads(ledger.as_json(found)) == found
        rows = list(csv.DictReader(io.StringIO(ledger.as_csv(found))))
        assert [row["dollars"] for row in rows] == [line["dollars"] for line in found]


def test_a_spreadsheet_takes_no_cell_for_a_formula() -> None:
    line = dict.fromkeys(ledger.COLUMNS, "x") | {"requester": '=HYPERLINK("http://x")', "unpriced": []}
    row = next(csv.DictReader(io.StringIO(ledger.as_csv([line]))))
    assert row["requester"].startswith("'=")
