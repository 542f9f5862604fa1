"""Charts and tables from numbers of any length, and the same without them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.slack import blocks, charts, digest_blocks
from bot.slack.lint import lint
from tests.slack import states

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
ROW = st.dictionaries(
    st.sampled_from(["train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_perplexity", "<!here>"]), NUMBERS
)


def linted(found: list[dict[str, Any]]) -> list[str]:
    return lint({"text": "charts", "blocks": found}) if found else []


@given(st.lists(ROW, max_size=80))
def test_any_metrics_make_charts_that_slack_takes(rows: list[dict[str, float]]) -> None:
    epochs = [{**row, "epoch": float(index + 1)} for index, row in enumerate(rows)]
    assert not linted(charts.learning_curves(epochs))


@pytest.mark.parametrize("count", [2, 19, 20, 21, 60, 1000])
def test_a_long_curve_is_thinned_evenly_and_says_so(count: int) -> None:
    loss, quality = charts.learning_curves(states.epochs(count))
    labels = [int(label) for label in loss["chart"]["axis_config"]["categories"]]
    assert labels[0] == 1 and labels[-1] == count and len(labels) == min(count, 20)
    steps = {after - before for before, after in pairwise(labels)}
    assert max(steps) - min(steps) <= 1
    assert ("of" in loss["title"]) == (count > 20)
    assert [one["name"] for one in quality["chart"]["series"]] == ["training", "validation"]
    assert quality["chart"]["axis_config"]["y_label"] == "accuracy, %"


def test_an_epoch_that_was_done_again_counts_once() -> None:
    rows = [*states.epochs(4)[:3], *states.epochs(4)[1:]]
    assert charts.learning_curves(rows)[0]["chart"]["axis_config"]["categories"] == ["1", "2", "3", "4"]


def test_there_is_no_curve_of_one_epoch() -> None:
    assert charts.learning_curves(states.epochs(1)) == [] == charts.learning_curves([])


@given(st.lists(st.text(max_size=60), min_size=1, max_size=40))
def test_bars_have_distinct_short_labels(names: list[str]) -> None:
    chart = charts.bars("Spend", names, {"dollars": [1.0] * len(names)}, "name", "dollars")
    assert not linted([chart])


@pytest.mark.parametrize("count", [1, 50, 51, 400])
def test_a_digest_of_many_jobs_keeps_the_limits_and_counts_the_rest(count: int) -> None:
    day = states.digest()
    day = replace(day, outcomes=day.outcomes[:1] * count, waiting=day.waiting * count)
    message = digest_blocks.message(day, states.ZONE)
    assert not lint(message) and not lint(charts.plainer(message))
    said = json.dumps(message, ensure_ascii=False)
    assert ("more jobs that ended" in said) == (count > digest_blocks.ROWS)


def test_without_charts_the_numbers_are_still_there() -> None:
    message = blocks.card(states.states()["succeeded"])
    plainer = charts.plainer(message)
    assert not lint(plainer)
    kinds = {block["type"] for block in plainer["blocks"]}
    assert "data_visualization" not in kinds and "data_table" not in kinds
    assert "Loss by epoch" in json.dumps(plainer) and "0.0557" in json.dumps(plainer)
