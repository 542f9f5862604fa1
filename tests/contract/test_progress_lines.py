"""What `trainers.reporting` writes is what `tools.progress` reads, event by event; and no line, however bad, raises.

The two hold the same format without importing each other, so nothing but these tests keeps them together.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tools import progress
from tools.progress import MESSAGE_LIMIT, PREFIX, Progress, parse_lines
from trainers import reporting

ROOT = Path(reporting.__file__).resolve().parents[1]
EVENTS = ("started", "progress", "epoch", "note", "result", "error")
VAST = 10**400  # beyond every float, and JSON all the same

finite = st.floats(allow_nan=False, allow_infinity=False)
metrics = st.dictionaries(st.text(min_size=1, max_size=60), finite, max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(
    ("step", "steps", "epoch", "epochs", "loss", "samples_per_second", "eta_seconds", "metrics", "message", "device")
)


def line(**event: Any) -> str:
    return PREFIX + json.dumps(event)


def usable(seen: Progress) -> None:
    """All that callers do with a progress works: the share, the text, the numbers."""
    assert 0.0 <= seen.fraction <= 1.0
    for number in (seen.step, seen.steps, seen.epoch, seen.epochs):
        assert isinstance(number, int) and number >= 0
    numbers = [value for row in (*seen.epoch_metrics, seen.result) for value in row.values()]
    numbers += [value for value in (seen.loss, seen.samples_per_second, seen.eta_seconds) if value is not None]
    json.dumps(numbers, allow_nan=False)
    assert all(len(text) <= MESSAGE_LIMIT for text in (*seen.notes, seen.error or ""))


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    """What the engine reads of all that was written so far."""
    return lambda: parse_lines(capsys.readouterr().out.splitlines())


# -- both sides agree ---------------------------------------------------------------------------------------------


def test_prefix_and_exit_codes_are_the_same() -> None:
    assert reporting.PREFIX == progress.PREFIX
    assert {code.name: code.value for code in reporting.ExitCode} == {
        code.name: code.value for code in progress.ExitCode
    }


def test_reporting_needs_the_standard_library_alone() -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import trainers.reporting"
    done = subprocess.run(  # -I -S: no site-packages, so neither torch nor anything else
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_event_that_a_trainer_emits_is_one_that_is_read() -> None:
    emitted = {
        node.args[0].value
        for path in (ROOT / "trainers").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "emit"
        if isinstance(node.args[0], ast.Constant)
    }
    assert emitted == set(EVENTS)


def test_started_is_read(told: Any) -> None:
    reporting.emit("started", steps=450, epochs=10, device="cpu", run_id="r1")
    assert told() == Progress(steps=450, epochs=10)


def test_progress_is_read(told: Any) -> None:
    lines = reporting.ProgressLines(steps=450, epochs=10, done=0)
    lines.report(step=45, epoch=1, loss=0.4123456789, samples_per_second=901.239)
    seen = told()
    assert (seen.step, seen.steps, seen.epoch, seen.epochs) == (45, 450, 1, 10)
    assert (seen.loss, seen.samples_per_second, seen.fraction) == (0.412346, 901.24, 0.1)
    assert seen.eta_seconds is not None and seen.eta_seconds >= 0


def test_the_last_step_is_told_however_soon_it_comes(told: Any) -> None:
    lines = reporting.ProgressLines(steps=3, epochs=1, done=0)
    for step in (1, 2, 3):
        lines.report(step=step, epoch=1, loss=1.0, samples_per_second=1.0)
    seen = told()
    assert (seen.step, seen.fraction, seen.eta_seconds) == (3, 1.0, 0.0)


def test_epochs_and_result_are_read(told: Any) -> None:
    for epoch in (1, 2):
        kept = reporting.finite({"train_loss": 1 / epoch, "val_accuracy": 0.5, "odd": float("nan")})
        reporting.emit("epoch", epoch=epoch, epochs=2, metrics=kept)
    reporting.emit("result", metrics={"val_accuracy": 0.97}, duration_seconds=8.1)
    seen = told()
    assert seen.epoch == 2 and seen.result == {"val_accuracy": 0.97}
    assert seen.epoch_metrics == (
        {"epoch": 1.0, "train_loss": 1.0, "val_accuracy": 0.5},
        {"epoch": 2.0, "train_loss": 0.5, "val_accuracy": 0.5},
    )


def test_notes_and_errors_are_read_beside_the_lines_for_people(told: Any) -> None:
    reporting.say("for people")
    reporting.note("the checkpoint\nwas  written")
    reporting.error("The data is missing:\n put it “there”.")
    seen = told()
    assert seen.notes == ("the checkpoint was written",)
    assert seen.error == "The data is missing: put it “there”."


@given(step=st.integers(0, 10**9), loss=finite, rate=finite, rows=st.lists(metrics, max_size=4))
def test_whatever_a_trainer_can_write_is_read_back(
    step: int, loss: float, rate: float, rows: list[dict[str, float]]
) -> None:
    lines: list[str] = []
    write = pytest.MonkeyPatch()
    with write.context() as patch:
        patch.setattr(reporting.sys.stdout, "write", lines.append)
        reporting.emit("progress", step=step, steps=10**9, epoch=1, epochs=1, loss=loss, samples_per_second=rate)
        for number, row in enumerate(rows, 1):
            reporting.emit("epoch", epoch=number, epochs=len(rows), metrics=row)
    assert all(one.endswith("\n") and one.count("\n") == 1 for one in lines), "one event is one line"
    seen = parse_lines(lines)
    assert (seen.step, seen.loss, seen.samples_per_second) == (step, loss, rate)
    assert seen.epoch_metrics == tuple({"epoch": float(number), **row} for number, row in enumerate(rows, 1))
    usable(seen)


# -- nothing raises -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        "",
        PREFIX,
        PREFIX.strip(),
        f" {line(event='error', message='not at the beginning')}",
        f"{PREFIX}{{",
        f"{PREFIX}[1]",
        f"{PREFIX}null",
        f'{PREFIX}{{"event": "progress", "step": {"9" * 5000}}}',
        line(event="tomorrow", step=3),
        line(event=["progress"], step=3),
        line(step=3),
    ],
)
def test_what_is_no_event_changes_nothing(bad: str) -> None:
    before = Progress(step=1, steps=2, notes=("n",))
    assert parse_lines([bad], before) == before


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "true", '"7"', "null", "[1]"])
def test_what_is_no_number_is_left_out(number: str) -> None:
    seen = parse_lines(
        [
            f'{PREFIX}{{"event": "progress", "step": {number}, "steps": {number}, "loss": {number}}}',
            f'{PREFIX}{{"event": "epoch", "epoch": {number}, "metrics": {{"bad": {number}, "good": 0.5}}}}',
            f'{PREFIX}{{"event": "result", "metrics": {{"bad": {number}, "good": 0.5}}}}',
        ]
    )
    assert (seen.step, seen.steps, seen.loss) == (0, 0, None)
    assert seen.epoch_metrics == ({"epoch": 0.0, "good": 0.5},) and seen.result == {"good": 0.5}
    usable(seen)


@pytest.mark.parametrize(
    "bad",
    [
        line(event="progress", step=1, loss=VAST),
        line(event="progress", step=VAST, steps=1),
        line(event="epoch", epoch=VAST, metrics={}),
        line(event="result", metrics={"val_loss": VAST}),
        f"{PREFIX}{'[' * 8000}",
        PREFIX + '{"a":' * 1600,
    ],
    ids=["vast loss", "vast step", "vast epoch", "vast metric", "deep list", "deep object"],
)
def test_vast_numbers_and_deep_nesting_never_raise(bad: str) -> None:
    usable(parse_lines([bad]))


@given(st.sampled_from((*EVENTS, "tomorrow")), st.dictionaries(fields, json_values, max_size=6))
@settings(max_examples=300)
@example("progress", {"step": -1, "steps": -1})
@example("result", {"metrics": {"x": float("nan")}})
@example("error", {"message": "x" * 10_000})
def test_events_with_any_fields_never_raise(event: str, given_fields: dict[str, Any]) -> None:
    usable(parse_lines([line(**{**given_fields, "event": event})]))


@given(st.lists(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "replace")), max_size=6))
def test_any_text_never_raises(texts: list[str]) -> None:
    usable(parse_lines([*texts, *(PREFIX + text for text in texts)]))
