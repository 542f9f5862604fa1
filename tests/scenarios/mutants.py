"""Breaks the code on purpose and shows that a test fails: `make mutants`.

Each mutant is one replacement in a copy of the tree; it is killed if the named tests fail on it. On the unbroken tree
they pass: `make test`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bot.settings import SOURCE

LIFE = "tests/scenarios/test_approval_life.py"
CRASH = "tests/scenarios/test_crashes.py"
STORE = "tests/integration/test_store.py"
TRAINJOB = "tests/integration/test_kubernetes_trainjob.py"
OFFERS = "tests/integration/test_kubernetes_offers.py"
INBOX = "tests/integration/test_inbox.py"


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    each: bool = False  # every one of the tests must fail by itself


SWAP = '[column == sa.bindparam(f"is_{column.name}") for column in compared]'
MUTANTS = (
    Mutant(
        "a runtime that was changed after the approval runs it",
        "tools/engines/kubernetes/engine.py",
        "if there.digest != digest:",
        "if False:",
        (TRAINJOB,),
    ),
    Mutant(
        "what was approved for a queue starts without it",
        "tools/engines/kubernetes/engine.py",
        "if queues is not None and queue not in queues:",
        "if False:",
        (OFFERS,),
    ),
    Mutant(
        "the compare-and-swap compares nothing",
        "bot/store/writing.py",
        SWAP,
        SWAP.replace("compared]", "compared[:0]]"),
        (LIFE, f"{CRASH}::test_a_kill_at_this_point_loses_nothing_and_starts_nothing_twice[propose.before_commit]"),
        each=True,
    ),
    Mutant(
        "one's own proposal may be approved",
        "bot/core/policy.py",
        "if voter == proposal.requester:",
        "if False:",
        (LIFE,),
    ),
    Mutant(
        "a vote by another card's digest counts",
        "bot/core/proposal.py",
        "if vote.revision != self.revision or vote.digest != self.digest:",
        "if False:",
        (LIFE,),
    ),
    Mutant(
        "the clock does not decide expiry", "bot/core/proposal.py", "if now >= self.expires_at:", "if False:", (STORE,)
    ),
    Mutant(
        "an engine's other job is taken for ours",
        "bot/core/job.py",
        "if observed.digest != job.digest:",
        "if False:",
        (LIFE, "tests/unit/test_next_step.py"),
    ),
    Mutant(
        "a lost job is made again",
        "bot/core/job.py",
        "        if job.uid:\n",
        "        if False:\n",
        (LIFE, "tests/unit/test_next_step.py"),
    ),
    Mutant(
        "the second gate is open",
        "bot/steps.py",
        "check_start(policy, proposal, budget)",
        "pass",
        (STORE,),
    ),
    Mutant(
        "two replicas let two trainings write one checkpoint",
        "bot/store/writing.py",
        "if any(other.checkpoint_of == job.checkpoint_of for other in held):",
        "if False:",
        (f"{STORE}::test_two_replicas_permit_as_one_would",),
    ),
    Mutant(
        "a message is taken from whoever answers it",
        "bot/store/writing.py",
        "return table.answered_at.is_(None) & ((table.claimed_until <= now) | unleased)",
        "return table.answered_at.is_(None)",
        (STORE, INBOX),
        each=True,
    ),
    Mutant(
        "a turn goes on though its message was taken",
        "bot/inbox.py",
        "fence.reschedule(asked + SURE_SECONDS if ours else asked)",
        "pass",
        (INBOX,),
    ),
    Mutant(
        "an event does not follow from the one before",
        "bot/store/chain.py",
        "hashed = link(hashed, body)",
        'hashed = link("", body)',
        (STORE,),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="part of a mutant's name")
    chosen = [one for one in MUTANTS if not (only := parser.parse_args().only) or only in one.name]
    survivors = 0
    for mutant in chosen:
        killed = _killed(mutant)
        survivors += not killed
        print(f"{'killed  ' if killed else 'SURVIVED'}  {mutant.name}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants killed.")
    return 1 if survivors else 0


def _killed(mutant: Mutant) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        skip = shutil.ignore_patterns(".*", "__pycache__", "docs", "uv.lock")
        shutil.copytree(SOURCE, tree, ignore=skip)
        broken = tree / mutant.file
        text = broken.read_text(encoding="utf-8")
        assert mutant.old in text, f"{mutant.file} has no {mutant.old!r} any more: mend the mutant"
        broken.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        groups = [[test] for test in mutant.tests] if mutant.each else [list(mutant.tests)]
        return all(_fails(tree, group) for group in groups)


def _fails(tree: Path, tests: list[str]) -> bool:
    """Whether these tests fail there (and not merely cannot run)."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            *(["--hypothesis-profile=unshrunk"] if LIFE in tests else []),
            *tests,
        ],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 1


if __name__ == "__main__":
    sys.exit(main())
