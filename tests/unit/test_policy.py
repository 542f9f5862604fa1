"""Who may ask and decide, and the exact sentence for those who may not."""

from __future__ import annotations

from decimal import Decimal

import pytest

from bot.core.errors import Misconfigured, Refused
from bot.core.policy import Budget, Policy, approvals_needed, check_proposing
from tools.cost import Amount
from tools.spec import parse_spec

DIGITS = parse_spec("digits", {})
FREE = Budget(limit=None, spent=Decimal(0), committed=Decimal(0))
QUORUM = [
    {"recipes": ["distilgpt2"], "up_to_gpus": 0, "approvals": "never"},
    {"up_to_dollars": "10", "up_to_gpus": 1, "approvals": 1},
    {"up_to_dollars": "100", "approvals": 2},
]
POLICY = Policy.parse({"approvers": ["ann", "bob"], "quorum": QUORUM})


def amount(dollars: str, *unpriced: str) -> Amount:
    return Amount(dollars=Decimal(dollars), unpriced=unpriced)


def test_an_empty_policy_lets_nothing_run() -> None:
    with pytest.raises(Refused, match="nobody approve"):
        approvals_needed(Policy.parse({}), DIGITS, amount("0"))
    nobody = Policy.parse({"quorum": [{"approvals": 1}]})
    with pytest.raises(Refused, match="Nobody could approve"):
        check_proposing(
            nobody, requester="r", author="r", spec=DIGITS, ceiling=amount("1"), budget=FREE, open_by_requester=0
        )


@pytest.mark.parametrize(("dollars", "gpus", "needed"), [("10", 0, 1), ("10.01", 0, 2), ("1", 1, 1), ("100", 0, 2)])
def test_the_quorum_goes_by_money_and_gpus(dollars: str, gpus: int, needed: int) -> None:
    assert approvals_needed(POLICY, parse_spec("mnist", {"gpus": gpus}), amount(dollars)) == needed


def test_beyond_every_rule_or_under_a_never_nobody_may() -> None:
    for spec, ceiling in ((DIGITS, amount("101")), (parse_spec("distilgpt2", {}), amount("1"))):
        with pytest.raises(Refused):
            approvals_needed(POLICY, spec, ceiling)


def test_what_is_not_priced_is_beyond_every_dollar_limit() -> None:
    with pytest.raises(Refused):
        approvals_needed(POLICY, DIGITS, amount("0", "GPU H100"))


def test_the_budget_counts_what_is_committed() -> None:
    budget = Budget(limit=Decimal(100), spent=Decimal(60), committed=Decimal(35))
    budget.must_hold(amount("5"))
    with pytest.raises(Refused, match=r"\$5\.00 of \$100\.00 is left"):
        budget.must_hold(amount("5.01"))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"quorum": [{"approvals": 0}]}, "nothing runs without a person"),
        ({"aprovers": ["ann"]}, "aprovers"),
        ({"budget_per_month": "-1"}, "budget_per_month"),
        ([], "document"),
    ],
)
def test_a_wrong_policy_names_the_place(document: object, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        Policy.parse(document)
