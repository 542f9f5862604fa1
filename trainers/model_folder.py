"""A trained network in MLflow's model format, written without the process that trains having to import MLflow.

`write` is the trainer's half: weights and example input. `describe` is that of the process that keeps the record: the
MLmodel file with flavours and signature. `mlflow.pytorch.load_model` and `mlflow.pyfunc.load_model` read the folder;
neither needs this package, since the network is made of torch's own modules.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.machine import package_version

if TYPE_CHECKING:
    import torch
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


def describe(folder: Path, run_id: str, tensors: dict[str, Any]) -> None:
    """Write the MLmodel file and the requirements beside what `write` left; `tensors` is what it returned."""
    import numpy
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(one: dict[str, Any]) -> Schema:
        return Schema([TensorSpec(numpy.dtype(one["dtype"]), tuple(one["shape"]))])

    model = Model(
        artifact_path=folder.name,
        run_id=run_id,
        signature=ModelSignature(schema(tensors["input"]), schema(tensors["output"])),
        saved_input_example_info={"artifact_path": EXAMPLE, "type": "ndarray", "format": "tf-serving"},
    )
    model.add_flavor("pytorch", model_data="data", pytorch_version=package_version("torch"), code=None)
    model.add_flavor(
        "python_function",
        loader_module="mlflow.pytorch",
        python_version=platform.python_version(),
        data="data",
        pickle_module_name=PICKLER,
    )
    model.save(str(folder / "MLmodel"))
    needed = [f"{name}=={package_version(name)}" for name in ("torch", "numpy", "cloudpickle") if package_version(name)]
    (folder / "requirements.txt").write_text("\n".join([*needed, "mlflow"]) + "\n", encoding="utf-8")
