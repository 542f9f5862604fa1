"""What can be trained, and with which parameters: the recipe catalogue and the typed, bounded `TrainingSpec`.

A spec is the only thing that reaches a trainer's command line. A model or a person gives a recipe's name and
parameters, often as strings; `parse_spec` turns them into a frozen value or raises `SpecError` with a sentence that
names the allowed range and the nearest allowed value. There is no free image, command or environment to choose.
Next step of a spec: `tools.cost` prices it, an engine renders it into a manifest.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.fields import FieldInfo

# A hub id (`owner/name`) or a path below the data folder: no leading dash or dot, no "..", nothing a shell or a
# markup would read.
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
Source = Annotated[str, StringConstraints(max_length=200, pattern=rf"^{_PART}(/{_PART})*$")]


JobName = Annotated[str, StringConstraints(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]


class SpecError(ValueError):
    """A request that no recipe can take. The message is one sentence for a person, with the nearest allowed value."""


class TrainingSpec(BaseModel):
    """What every recipe has in common. Frozen; equal specs have equal `canonical()` dictionaries."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # What a recipe's class says of itself; not parameters.
    module: ClassVar[str]  # the trainer, started as `python -m MODULE`
    summary: ClassVar[str]  # one line for help texts and the agent
    headline: ClassVar[str]  # the metric that tells a run's quality
    aliases: ClassVar[tuple[str, ...]] = ()

    recipe: str
    epochs: int = Field(default=3, ge=1, le=100, description="passes over the training data")
    lr: float = Field(default=1e-3, ge=1e-6, le=1.0, description="peak learning rate")
    batch_size: int = Field(default=64, ge=1, le=4096, description="examples a step")
    gpus: int = Field(default=0, ge=0, le=1, description="GPUs; 0 trains on CPU cores")
    memory_gib: int | None = Field(default=None, ge=1, le=2048, description="GiB of memory; its usual if left out")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="of weights, data order and split")
    resume_from: JobName | None = Field(default=None, description="the job that left the checkpoint to go on from")
    max_runtime_minutes: int = Field(default=60, ge=1, le=2880, description="the job is stopped after this long")

    @property
    def machines(self) -> int:
        """How many nodes train it together."""
        return 1

    @property
    def processes(self) -> int:
        """How many processes train it together: one a GPU, or one a node."""
        return self.machines * max(self.gpus, 1)

    def canonical(self) -> dict[str, Any]:
        """JSON-ready dictionary of every parameter, defaults included, without what is left to the engine."""
        return self.model_dump(mode="json", exclude_none=True)

    def argv(self) -> list[str]:
        """The trainer's arguments, without interpreter, module and folders (an engine adds those)."""
        return [
            *("--epochs", str(self.epochs), "--lr", repr(self.lr), "--batch-size", str(self.batch_size)),
            *("--seed", str(self.seed), "--device", "cuda" if self.gpus else "cpu"),
            *(["--resume"] if self.resume_from else []),
        ]


class DigitsSpec(TrainingSpec):
    module = "trainers.mnist_cnn"
    summary = "a small CNN on scikit-learn's 1,797 bundled handwritten digits; needs no download, seconds on a CPU"
    headline = "val_accuracy"
    aliases = ("digit", "sklearn-digits", "handwritten-digits")

    recipe: Literal["digits"] = "digits"
    epochs: int = Field(default=8, ge=1, le=100, description="passes over the training data")
    batch_size: int = Field(default=32, ge=1, le=1024, description="examples a step")
    max_runtime_minutes: int = Field(default=15, ge=1, le=240, description="the job is stopped after this long")

    def argv(self) -> list[str]:
        return ["--dataset", "digits", *super().argv()]


class MnistSpec(TrainingSpec):
    module = "trainers.mnist_cnn"
    summary = "a CNN (conv 1→32→64 + FC) on MNIST's 60,000 images; under a minute on a CPU"
    headline = "val_accuracy"
    aliases = ("mnist-cnn", "train-mnist")

    recipe: Literal["mnist"] = "mnist"
    epochs: int = Field(default=3, ge=1, le=50, description="passes over the training data")
    lr: float = Field(default=5e-3, ge=1e-6, le=1.0, description="peak learning rate")
    batch_size: int = Field(default=128, ge=1, le=4096, description="examples a step")

    def argv(self) -> list[str]:
        return ["--dataset", "mnist", *super().argv()]


class Cifar10Spec(TrainingSpec):
    module = "trainers.cifar10"
    summary = "a small CNN on CIFAR-10's 50,000 colour images of ten classes; meant for a GPU"
    headline = "val_accuracy"
    aliases = ("cifar", "cifar-10")

    recipe: Literal["cifar10"] = "cifar10"
    epochs: int = Field(default=10, ge=1, le=200, description="passes over the training data")
    lr: float = Field(default=5e-3, ge=1e-6, le=1.0, description="peak learning rate")
    batch_size: int = Field(default=256, ge=1, le=4096, description="examples a step")
    max_runtime_minutes: int = Field(default=120, ge=1, le=2880, description="the job is stopped after this long")


class DistilGpt2Spec(TrainingSpec):
    module = "trainers.distilgpt2"
    summary = "fine-tunes a Hugging Face causal language model (distilgpt2 by default) on WikiText-2 or other text"
    headline = "val_perplexity"
    aliases = ("gpt2", "distil-gpt2", "llm", "language-model", "causal-lm", "train-llm")

    recipe: Literal["distilgpt2"] = "distilgpt2"
    epochs: int = Field(default=1, ge=1, le=20, description="passes over the training data")
    lr: float = Field(default=5e-5, ge=1e-7, le=1e-2, description="peak learning rate")
    batch_size: int = Field(default=8, ge=1, le=256, description="blocks a step")
    gpus: int = Field(default=0, ge=0, le=8, description="GPUs of a node; 0 trains on CPU cores")
    nodes: int | None = Field(default=None, ge=1, le=16, description="nodes that train together; one if left out")
    model: Source = Field(default="distilgpt2", description="hub id, or folder below the data folder")
    dataset: Source = Field(default="wikitext-2", description="wikitext-2, hub id, or text below the data folder")
    block_size: int = Field(default=128, ge=16, le=1024, description="tokens a block")
    max_runtime_minutes: int = Field(default=240, ge=1, le=2880, description="the job is stopped after this long")

    @property
    def machines(self) -> int:
        return self.nodes or 1

    def argv(self) -> list[str]:
        return [
            *("--model", self.model, "--dataset", self.dataset, "--block-size", str(self.block_size)),
            *super().argv(),
        ]


CATALOGUE: dict[str, type[TrainingSpec]] = {
    "digits": DigitsSpec,
    "mnist": MnistSpec,
    "cifar10": Cifar10Spec,
    "distilgpt2": DistilGpt2Spec,
}

_NAMES = {alias: name for name, recipe in CATALOGUE.items() for alias in (name, *recipe.aliases)}

# What people and models call a parameter, beside its own name.
PARAMETER_ALIASES = {
    "learning_rate": "lr",
    "batch": "batch_size",
    "batchsize": "batch_size",
    "bs": "batch_size",
    "epoch": "epochs",
    "num_epochs": "epochs",
    "gpu": "gpus",
    "node": "nodes",
    "num_nodes": "nodes",
    "max_runtime": "max_runtime_minutes",
    "max_minutes": "max_runtime_minutes",
    "memory": "memory_gib",
    "ram": "memory_gib",
    "model_name": "model",
    "data": "dataset",
}


def recipe_named(name: str) -> type[TrainingSpec]:
    """The recipe of that name or alias, however it is written; `SpecError` names the nearest one."""
    key = re.sub(r"[\s_]+", "-", name.strip().lower())
    if key in _NAMES:
        return CATALOGUE[_NAMES[key]]
    near = nearest_recipe(key)
    known = ", ".join(CATALOGUE)
    hint = f" Did you mean {near}?" if near else ""
    raise SpecError(f"There is no recipe {_quoted(name)}; the recipes are {known}.{hint}")


def nearest_recipe(word: str, cutoff: float = 0.6) -> str | None:
    """The recipe that a misspelt word most likely means, or None."""
    found = difflib.get_close_matches(word.lower(), list(_NAMES), n=1, cutoff=cutoff)
    return _NAMES[found[0]] if found else None


def parse_spec(recipe: str, parameters: Mapping[str, object]) -> TrainingSpec:
    """A spec from a recipe's name and parameters of any spelling; None means "not given".

    Raises `SpecError`: one sentence that names the range allowed and the nearest value in it.
    """
    kind = recipe_named(recipe)
    given: dict[str, object] = {}
    for raw_name, value in parameters.items():
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        name = _parameter(kind, raw_name)
        given[name] = _number(value) if isinstance(value, str) and _is_numeric(kind.model_fields[name]) else value
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise SpecError(" ".join(_sentence(kind, given, problem) for problem in error.errors())) from error


def stored_spec(parameters: Mapping[str, Any]) -> TrainingSpec:
    """A spec that was valid when it was stored, whatever today's bounds are; a recipe that is gone keeps its name."""
    recipe = str(parameters.get("recipe", ""))
    given = {name: value for name, value in parameters.items() if name != "recipe"}
    try:
        return parse_spec(recipe, given)
    except SpecError:
        return CATALOGUE.get(recipe, TrainingSpec).model_construct(**parameters)


def changed(before: TrainingSpec, after: TrainingSpec) -> dict[str, tuple[Any, Any]]:
    """Parameter → (old, new) for each that differs; the diff on an edited card."""
    old, new = before.canonical(), after.canonical()
    return {name: (old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)}


def bounds(field: FieldInfo) -> tuple[float | None, float | None]:
    """The least and greatest allowed value of a numeric parameter (None where it has none)."""
    low = next((item.ge for item in field.metadata if hasattr(item, "ge")), None)
    high = next((item.le for item in field.metadata if hasattr(item, "le")), None)
    return low, high


def _parameter(kind: type[TrainingSpec], name: str) -> str:
    key = re.sub(r"[\s-]+", "_", name.strip().lower())
    key = PARAMETER_ALIASES.get(key, key)
    known = [field for field in kind.model_fields if field != "recipe"]
    if key in known:
        return key
    near = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    title = kind.model_fields["recipe"].default
    raise SpecError(f"The recipe {title} has no parameter {_quoted(name)}; it takes {', '.join(known)}.{hint}")


def is_whole(field: FieldInfo) -> bool:
    """Whether a parameter is a whole number, required or not."""
    return field.annotation in (int, int | None)


def _is_numeric(field: FieldInfo) -> bool:
    return is_whole(field) or field.annotation is float


def _number(text: str) -> object:
    """A number written by a person: "1,000", ".05", "1e-3", "24Gi", "true" (one GPU); otherwise the text as it is."""
    cleaned = re.sub(r"(?<=\d)\s*(?:gib|gi|gb|g)$", "", text.strip(), flags=re.IGNORECASE)
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}([,_]\d{3})+(\.\d+)?", cleaned):  # "0,001" is not a thousand of anything
        cleaned = cleaned.replace(",", "").replace("_", "")
    if cleaned.lower() in {"true", "yes", "on"}:
        return 1
    if cleaned.lower() in {"false", "no", "off", "none"}:
        return 0
    try:
        number = float(cleaned)
    except ValueError:
        return text
    return int(number) if number.is_integer() and "." not in cleaned and "e-" not in cleaned.lower() else number


def _sentence(kind: type[TrainingSpec], given: Mapping[str, object], problem: Any) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else "recipe"
    field = kind.model_fields[name]
    value = given.get(name)
    title = kind.model_fields["recipe"].default
    if name == "resume_from":
        return f"resume_from for {title} must be the name of a job that has ended; {_quoted(value)} is not."
    if not _is_numeric(field):
        return (
            f"{name} for {title} must be a hub id such as owner/name or a path below the data folder "
            f"(letters, digits, . _ - /, at most 200 characters); {_quoted(value)} is not."
        )
    low, high = bounds(field)
    whole = "a whole number" if is_whole(field) else "a number"
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        nearest: float = min(max(value, low if low is not None else value), high if high is not None else value)
        nearest = round(nearest) if is_whole(field) else nearest
        return (
            f"{name} for {title} must be {whole} from {_plain(low)} to {_plain(high)}; {_plain(value)} is not, "
            f"the nearest allowed value is {_plain(nearest)}."
        )
    return f"{name} for {title} must be {whole} from {_plain(low)} to {_plain(high)}; {_quoted(value)} is not one."


def _plain(number: float | None) -> str:
    return "any" if number is None else f"{number:.12g}"


def _quoted(value: object) -> str:
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", str(value))
    return f"“{text[:60]}{'…' if len(text) > 60 else ''}”"
