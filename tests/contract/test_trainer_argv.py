"""The bot's specs and the trainers' parsers agree: what one emits the other reads, within the same bounds."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.engines import local
from tools.spec import CATALOGUE, SpecError, TrainingSpec, bounds, parse_spec

NOT_ARGUMENTS = {
    "recipe",
    "gpus",
    "nodes",
    "memory_gib",
    "resume_from",
    "max_runtime_minutes",
}  # what the engine makes of a spec itself
NUMBERS = [
    (recipe, name, limit)
    for recipe, kind in CATALOGUE.items()
    for name, field in kind.model_fields.items()
    if name not in NOT_ARGUMENTS
    for limit in bounds(field)
    if limit is not None
]


def parsed(spec: TrainingSpec, *more: str) -> Any:
    return importlib.import_module(spec.module).parse([*spec.argv(), *more])


@pytest.mark.parametrize("recipe", CATALOGUE)
@pytest.mark.parametrize("gpus", [0, 1])
def test_each_recipe_is_read_back_as_it_was_meant(recipe: str, gpus: int) -> None:
    spec = parse_spec(recipe, {"gpus": gpus, "lr": 0.0031, "seed": 7})
    args = parsed(spec)
    assert args.device == ("cuda" if gpus else "cpu")
    for name, value in spec.canonical().items():
        if name not in NOT_ARGUMENTS:
            assert getattr(args, name) == value, name


@pytest.mark.parametrize(("recipe", "name", "limit"), NUMBERS)
def test_the_bounds_are_those_of_the_spec(
    recipe: str, name: str, limit: float, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = CATALOGUE[recipe]
    option = f"--{name.replace('_', '-')}"
    assert getattr(parsed(parse_spec(recipe, {name: limit})), name) == limit
    low, _ = bounds(kind.model_fields[name])
    beyond = limit * (0.5 if limit == low else 2) if name == "lr" else limit + (-1 if limit == low else 1)
    with pytest.raises(SystemExit) as stopped:
        parsed(parse_spec(recipe, {}), option, str(beyond))
    assert stopped.value.code == 2
    assert option in capsys.readouterr().err


def test_a_resumed_training_is_told_so_and_finds_the_checkpoint_where_engines_look() -> None:
    for recipe in CATALOGUE:
        assert parsed(parse_spec(recipe, {"resume_from": "digits-1-abc123"})).resume
    assert importlib.import_module("trainers.run").CHECKPOINT == local.CHECKPOINT
    with pytest.raises(SpecError, match="the name of a job"):
        parse_spec("digits", {"resume_from": "../digits"})


def test_defaults_are_those_of_the_specs() -> None:
    for recipe, kind in CATALOGUE.items():
        spec = parse_spec(recipe, {})
        given = ["--dataset", recipe] if recipe in ("digits", "mnist") else []
        args = importlib.import_module(kind.module).parse(given)
        for name, value in spec.canonical().items():
            if name not in NOT_ARGUMENTS:
                assert getattr(args, name) == value, (recipe, name)


def test_parsing_imports_neither_torch_nor_the_bot() -> None:
    """In a process of its own, so that what other tests import does not count."""
    calls = "".join(
        f"importlib.import_module({kind.module!r}).build_parser().parse_args({parse_spec(recipe, {}).argv()!r})\n"
        for recipe, kind in CATALOGUE.items()
    )
    check = (
        "loaded = {name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'mlflow', 'bot', 'tools'}\n"
    )
    script = f"import importlib, sys\n{calls}{check}sys.exit(', '.join(loaded) or 0)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)
