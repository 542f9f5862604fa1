"""A trained model in MLflow's format, written without the process that trains having to import MLflow.

The trainer's half is `write` for a network, weights and example input, and `complete` for a language model whose folder
Hugging Face has written. `describe` is that of the process that keeps the record: the MLmodel file with flavours and
signature. `mlflow.pyfunc.load_model` reads the folder, and so does `load_model` of `mlflow.pytorch` or
`mlflow.transformers`; none needs this package, since the models are made of the libraries' own modules.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.machine import package_version

if TYPE_CHECKING:
    import torch
    from mlflow.models import Model
    from torch import nn

EXAMPLE = "input_example.json"
PICKLER = "mlflow.pytorch.pickle_module"  # the name that MLflow looks for; it is Python's own, with cloudpickle added


def write(folder: Path, model: nn.Module, example: torch.Tensor) -> dict[str, Any]:
    """Write the network and an example batch (n, …) into the folder; shapes and types of its input and output."""
    import torch

    model.eval()
    with torch.inference_mode():
        output = model(example)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    torch.save(model, folder / "data" / "model.pth")
    (folder / "data" / "pickle_module_info.txt").write_text(PICKLER, encoding="utf-8")
    (folder / EXAMPLE).write_text(json.dumps(example.tolist()), encoding="utf-8")
    return {"input": _tensor(example), "output": _tensor(output)}


def _tensor(value: torch.Tensor) -> dict[str, Any]:
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": [-1, *value.shape[1:]]}


def complete(folder: Path, tokenizer: Any, example: str, new_tokens: int) -> dict[str, Any]:
    """Add to a folder of Hugging Face, which keeps its weights as they are, what MLflow wants beside them.

    `new_tokens` are as many as the model answers with unless it is asked for others.
    """
    tokenizer.save_pretrained(folder / "components" / "tokenizer")  # the one place where MLflow looks for it
    (folder / EXAMPLE).write_text(json.dumps(example), encoding="utf-8")
    return {"new_tokens": new_tokens}


def describe(folder: Path, run_id: str, contents: dict[str, Any]) -> None:
    """Write the MLmodel file and the requirements beside what `write` or `complete` left; it returned `contents`."""
    from mlflow.models import Model

    model = Model(artifact_path=folder.name, run_id=run_id)
    if "new_tokens" in contents:
        packages = _describe_language_model(model, folder, contents)
    else:
        packages = _describe_network(model, contents)
    model.save(str(folder / "MLmodel"))
    needed = [f"{name}=={package_version(name)}" for name in packages if package_version(name)]
    (folder / "requirements.txt").write_text("\n".join([*needed, "mlflow"]) + "\n", encoding="utf-8")


def _describe_network(model: Model, contents: dict[str, Any]) -> Sequence[str]:
    import numpy
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(one: dict[str, Any]) -> Schema:
        return Schema([TensorSpec(numpy.dtype(one["dtype"]), tuple(one["shape"]))])

    model.signature = ModelSignature(schema(contents["input"]), schema(contents["output"]))
    model.saved_input_example_info = {"artifact_path": EXAMPLE, "type": "ndarray", "format": "tf-serving"}
    model.add_flavor("pytorch", model_data="data", pytorch_version=package_version("torch"), code=None)
    model.add_flavor(
        "python_function",
        loader_module="mlflow.pytorch",
        python_version=platform.python_version(),
        data="data",
        pickle_module_name=PICKLER,
    )
    return "torch", "numpy", "cloudpickle"


def _describe_language_model(model: Model, folder: Path, contents: dict[str, Any]) -> Sequence[str]:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    text = Schema([ColSpec("string")])
    model.signature = ModelSignature(text, text)
    model.saved_input_example_info = {"artifact_path": EXAMPLE, "type": "json_object"}
    model.add_flavor(
        "transformers",
        transformers_version=package_version("transformers"),
        task="text-generation",
        instance_type="TextGenerationPipeline",
        pipeline_model_type=json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0],
        model_binary=".",  # not a folder below: `from_pretrained` reads this one too
        components=["tokenizer"],
        tokenizer_type="AutoTokenizer",  # tokenizers' own classes are not the same in all versions of transformers
        code=None,
    )
    model.add_flavor(
        "python_function",
        loader_module="mlflow.transformers",
        python_version=platform.python_version(),
        config={"max_new_tokens": contents["new_tokens"]},
    )
    return "torch", "transformers", "numpy"
