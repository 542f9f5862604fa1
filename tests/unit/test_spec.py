"""What people and models may write, and the sentence that they get where they may not."""

from __future__ import annotations

import pytest

from tools.spec import SpecError, parse_spec, recipe_named


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"epochs": "2"}, "epochs", 2),
        ({"lr": ".05"}, "lr", 0.05),
        ({"lr": "3e-4"}, "lr", 3e-4),
        ({"batch_size": "1,000"}, "batch_size", 1000),
        ({"learning_rate": 0.1}, "lr", 0.1),
        ({"bs": "32"}, "batch_size", 32),
        ({"gpus": "true"}, "gpus", 1),
        ({"gpus": False}, "gpus", 0),
        ({"epochs": None}, "epochs", 8),
    ],
)
def test_strings_and_spellings_are_converted(given: dict[str, object], field: str, value: object) -> None:
    assert getattr(parse_spec("digits", given), field) == value


@pytest.mark.parametrize(
    ("recipe", "given", "words"),
    [
        ("digits", {"epochs": 500}, "from 1 to 100; 500 is not, the nearest allowed value is 100"),
        ("digits", {"lr": "0"}, "nearest allowed value is 1e-06"),
        ("digits", {"batch_size": -3}, "nearest allowed value is 1"),
        ("digits", {"epochs": 2.5}, "a whole number"),
        ("digits", {"lr": "nan"}, "a number from"),
        ("digits", {"epochs": "many"}, "“many” is not one"),
        ("digits", {"lr": "0,001"}, "“0,001” is not one"),
        ("digits", {"epochs": "1,5"}, "“1,5” is not one"),
        ("minst", {}, "Did you mean mnist?"),
        ("resnet", {}, "the recipes are digits, mnist, cifar10, distilgpt2"),
        ("digits", {"learnin_rate": 1}, "has no parameter"),
        ("distilgpt2", {"model": "../../etc/passwd"}, "must be a hub id"),
        ("distilgpt2", {"dataset": "-rf"}, "must be a hub id"),
    ],
)
def test_what_is_wrong_is_said_with_the_nearest_right(recipe: str, given: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(recipe, given)
    assert words in str(caught.value)


def test_recipes_are_known_by_their_aliases() -> None:
    assert recipe_named("GPT2").model_fields["recipe"].default == "distilgpt2"
    assert recipe_named("handwritten digits").model_fields["recipe"].default == "digits"
