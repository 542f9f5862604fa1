"""The command line: `python -m bot chat | serve | demo | digest | doctor | jobs | ledger | audit`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from datetime import date, timedelta

from bot.core.errors import Misconfigured, SignalboxError
from bot.settings import Settings, load

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
TEAM, CHANNEL = "local", "terminal"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Answers the exit status: 0 done, 1 not, 2 wrong arguments or settings, 130 interrupted."""
    arguments = build_parser().parse_args(argv)
    try:
        settings = load()
        status: int = asyncio.run(arguments.command(settings, arguments))
        return status
    except SignalboxError as error:
        print(f"signalbox: {error}", file=sys.stderr)
        return MISUSED
    except KeyboardInterrupt:
        print("\nLeft. Running trainings go on; `python -m bot chat` shows how they end.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    parser = argparse.ArgumentParser(
        prog="python -m bot", description="Signalbox: model training with people in the loop."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    chat = commands.add_parser("chat", help="talk in this terminal, or from a pipe")
    chat.add_argument("--no-wait", action="store_true", help="from a pipe: do not wait for the open jobs at the end")
    chat.set_defaults(command=_chat)
    serve = commands.add_parser("serve", help="connect to Slack and work there")
    serve.set_defaults(command=_serve)
    demo = commands.add_parser("demo", help="see the main job happen, with a real training on this machine")
    demo.set_defaults(command=_demo)
    digest = commands.add_parser("digest", help="print a day's digest")
    digest.add_argument("--date", type=_date, default=None, help="YYYY-MM-DD in SIGNALBOX_TIMEZONE; default yesterday")
    digest.set_defaults(command=_digest)
    doctor = commands.add_parser("doctor", help="check every setting and connection, and say what to fix")
    doctor.set_defaults(command=_doctor)
    jobs = commands.add_parser("jobs", help="list proposals and jobs")
    jobs.add_argument("--json", action="store_true", help="as JSON, for programs")
    jobs.set_defaults(command=_jobs)
    ledger = commands.add_parser("ledger", help="what every attempt held and cost, for your own books")
    ledger.add_argument("action", choices=["export"], help="one line an interval, clipped to the days asked for")
    ledger.add_argument("--from", dest="first", type=_date, required=True, help="first day, in SIGNALBOX_TIMEZONE")
    ledger.add_argument("--to", dest="last", type=_date, required=True, help="last day, itself included")
    ledger.add_argument("--format", choices=["csv", "json"], default="csv", help="default csv")
    ledger.set_defaults(command=_ledger)
    audit = commands.add_parser("audit", help="check the audit log")
    audit.add_argument("action", choices=["verify"], help="walk the hash chain and compare every row with it")
    audit.set_defaults(command=_audit)
    return parser


async def _chat(settings: Settings, arguments: argparse.Namespace) -> int:
    from bot.console import session

    session.quiet_logging()
    return await session.run(settings, wait=not arguments.no_wait)


async def _serve(settings: Settings, arguments: argparse.Namespace) -> int:
    from bot.slack.service import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return await serve(settings)


async def _demo(settings: Settings, arguments: argparse.Namespace) -> int:
    from bot.console import demo, session

    session.quiet_logging()
    return await demo.run(settings)


async def _digest(settings: Settings, arguments: argparse.Namespace) -> int:
    from bot import digests
    from bot.bootstrap import opened

    async with opened(settings) as app:
        now = await app.store.now()
        of = arguments.date or now.astimezone(settings.zone).date() - timedelta(days=1)
        built = await digests.build(app.store, app.pricing, app.policies, TEAM, CHANNEL, of)
    print("\n".join(digests.lines(built, settings.zone)))
    return OK


async def _doctor(settings: Settings, arguments: argparse.Namespace) -> int:
    from bot.doctor import Mark, examine

    findings = await examine(settings)
    for finding in findings:
        print(f"{finding.mark:<6}{finding.what:<16}{finding.say}")
    wrong = sum(finding.mark is Mark.WRONG for finding in findings)
    print(f"\n{wrong} thing(s) to fix." if wrong else "\nAll is well.")
    return FAILED if wrong else OK


async def _jobs(settings: Settings, arguments: argparse.Namespace) -> int:
    from bot.bootstrap import opened
    from bot.listing import documents, table

    async with opened(settings) as app:
        proposals = await app.store.every_proposal()
        cards = [await app.cards.card(proposal.id) for proposal in proposals]
    print(json.dumps(documents(cards), indent=2) if arguments.json else "\n".join(table(cards)))
    return OK


async def _ledger(settings: Settings, arguments: argparse.Namespace) -> int:
    from bot import ledger
    from bot.bootstrap import opened
    from bot.core.periods import days

    if arguments.last < arguments.first:
        raise Misconfigured(f"--to {arguments.last} is before --from {arguments.first}; turn them round.")
    window = days(arguments.first, arguments.last, settings.zone, "export")
    async with opened(settings) as app:
        charges, now = await app.store.charges(window.start, window.end), await app.store.now()
    found = ledger.lines(charges, window, now)
    print(ledger.as_json(found) if arguments.format == "json" else ledger.as_csv(found), end="")
    return OK


async def _audit(settings: Settings, arguments: argparse.Namespace) -> int:
    from bot.bootstrap import opened
    from bot.store.audit import verify

    async with opened(settings) as app:
        report = await verify(app.store)
    if report.whole:
        print(f"The audit chain is whole: {report.events} events of {report.entities} proposals and jobs.")
        return OK
    for finding in report.findings:
        print(f"BROKEN at {finding.where}: {finding.what}.")
    return FAILED


def _date(text: str) -> date:
    try:
        found = date.fromisoformat(text)
        if not 1970 <= found.year <= 9000:
            raise ValueError(text)
        return found
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write YYYY-MM-DD") from None


if __name__ == "__main__":
    sys.exit(main())
