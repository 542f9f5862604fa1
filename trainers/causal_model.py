"""A causal language model of Hugging Face: read, made lean for training, adapted by LoRA, written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.hub import not_found
from trainers.memory import is_out_of_memory
from trainers.reporting import BadInput, one_line

if TYPE_CHECKING:
    import torch

LORA_DROPOUT = 0.05
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"  # in a model's folder
PROBE_TOKENS = 8  # that are read twice, with another last one
PROBE_TOLERANCE = 1e-4  # of the logits: above what rounding does, below what attention does even untrained
SAMPLE = 1024  # values of each frozen weight by which it is known again


def load_model(name: str, data_dir: Path, block_size: int) -> tuple[Any, Any]:
    """Model (fp32) and tokenizer from a folder or the hub; `BadInput` if they are not whole or cannot be trained."""
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    path = data_dir / name
    if os.path.isfile(path):  # noqa: PTH113 - the method raises where a name is too long
        raise BadInput(f"{path} is a file; name the folder that holds {CONFIG}, weights and tokenizer.")
    config = _read(AutoConfig, name, path, CONFIG)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise _not_causal(name, path, config)
    tokenizer = _read(AutoTokenizer, name, path, TOKENIZER)
    if tokenizer.get_vocab().keys() <= set(tokenizer.all_special_tokens):  # what the library makes of nothing
        raise BadInput(f"The model {name} has no tokenizer; put its {TOKENIZER} into {path}.")
    options = {"dtype": torch.float32, "ignore_mismatched_sizes": True, "output_loading_info": True}
    model, found = _read(AutoModelForCausalLM, name, path, WEIGHTS, **options)
    lacking = found["missing_keys"] & dict(model.named_parameters()).keys()
    if strange := sorted(lacking | {key for key, *_ in found["mismatched_keys"]}):
        raise BadInput(
            f"The weights of {name} do not fit its {CONFIG}: {len(strange)} of them are missing or of another shape, "
            f"{strange[0]} for one; fetch the model again, {CONFIG} and weights together."
        )
    most = getattr(model.config, "max_position_embeddings", None) or block_size
    if block_size > most:
        raise BadInput(
            f"The model {name} takes at most {most} tokens a block, not {block_size}; choose a smaller block size."
        )
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise BadInput(f"The tokenizer of {name} has more tokens than the model; it is that of another model.")
    if _looks_ahead(model):
        raise _not_causal(name, path, config)
    _fuse_gelu(model)
    return model, tokenizer


def _read(auto: Any, name: str, path: Path, file: str, **options: object) -> Any:
    """What that class of Hugging Face reads from the folder or else the hub; `file` is where it looks first."""
    local = os.path.isdir(path)  # noqa: PTH112 - the method raises where a name is too long
    try:
        return auto.from_pretrained(str(path) if local else name, trust_remote_code=False, **options)
    except Exception as problem:  # libraries raise whatever they like of files that are not as they should be
        if is_out_of_memory(problem):
            raise
        raise (_unusable(path, file, problem) if local else not_found("model", name, path, problem)) from problem


def _unusable(folder: Path, file: str, problem: Exception) -> BadInput:
    """What to say of a model's folder that could not be read, naming the file that is to blame."""
    damaged = _damaged(folder)
    culprit, problem = damaged or (folder / file, problem)
    reason = f"{type(problem).__name__}: {_first_sentence(problem)}"
    if damaged:
        return BadInput(f"{culprit} is damaged ({reason}); fetch the model again.")
    if not culprit.exists():
        return BadInput(f"{folder} holds no {file} ({reason}); put the whole model there.")
    # Weights that can be read were not what the configuration asks for.
    return BadInput(
        f"{folder / CONFIG if file == WEIGHTS else culprit} cannot be used ({reason}); choose another model."
    )


def _first_sentence(problem: Exception) -> str:
    return one_line(str(problem)).partition(". ")[0][:160].rstrip(".")


def _damaged(folder: Path) -> tuple[Path, Exception] | None:
    """The first file in a model's folder that is not what its name says, and why."""
    import torch
    from safetensors import safe_open

    def weights(file: Path) -> None:
        with safe_open(file, "pt"):
            pass

    readers: dict[str, Callable[[Path], object]] = {
        "*.json": lambda file: json.loads(file.read_text(encoding="utf-8")),
        "*.safetensors": weights,
        "pytorch_model*.bin": lambda file: torch.load(file, map_location="meta", weights_only=True),
    }
    for pattern, read in readers.items():
        for file in sorted(folder.glob(pattern)):
            try:
                read(file)
            except Exception as problem:  # as above
                return file, problem
    return None


def _not_causal(name: str, path: Path, config: Any) -> BadInput:
    where = f" ({path / CONFIG})" if os.path.isdir(path) else ""  # noqa: PTH112 - as above
    return BadInput(
        f"The model {name} is of type {config.model_type}{where}, which does not write text from left to right; "
        "choose a causal language model, such as distilgpt2."
    )


def _looks_ahead(model: Any) -> bool:
    """Whether what it says of a token depends on those that follow, as in an encoder: learning is copying then."""
    import torch

    tokens = torch.arange(PROBE_TOKENS).repeat(2, 1) % model.get_input_embeddings().num_embeddings
    tokens[1, -1] = 0
    with torch.inference_mode():
        one, other = model.eval()(input_ids=tokens, use_cache=False).logits[:, :-1]
    return bool((one - other).abs().max() > PROBE_TOLERANCE * one.abs().max())


def _fuse_gelu(model: Any) -> None:
    """GPT-2's activation as one operation: written out, it keeps eight tensors a layer for the way back."""
    from torch.nn import GELU
    from transformers.activations import NewGELUActivation

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELU(approximate="tanh"))


def computes_in_half(precision: str, device: torch.device) -> bool:
    """Whether to compute in bf16; `auto` where the hardware does. Weights and sums stay in fp32."""
    import torch

    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def compute_activations_twice(model: Any, name: str) -> None:
    """Keep layers' inputs alone for the way back; `BadInput` if the model cannot."""
    try:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as problem:
        raise BadInput(
            f"The model {name} does not support --gradient-checkpointing; "
            "train without it, or with --accumulation where memory is short."
        ) from problem


def add_adapters(model: Any, name: str, rank: int) -> Any:
    """The model with LoRA's adapters beside its linear layers; only they are trained. `BadInput` if none fits."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=LORA_DROPOUT,
        target_modules="all-linear",
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),  # GPT-2's are transposed
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as problem:
        raise BadInput(
            f"The model {name} takes no LoRA adapters ({_first_sentence(problem)}); train without --lora-rank."
        ) from problem


def frozen_sample(model: Any) -> list[torch.Tensor]:
    """Some values of each weight that is not trained."""
    return [weight.detach().flatten()[:SAMPLE] for weight in model.parameters() if not weight.requires_grad]


class Trained:
    """What of a model a checkpoint must hold: its trained weights. The others come from where they came from."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def state_dict(self) -> dict[str, Any]:
        return {name: weight.detach() for name, weight in self._model.named_parameters() if weight.requires_grad}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        import torch

        weights = dict(self._model.named_parameters())
        if missing := self.state_dict().keys() ^ state_dict.keys():
            raise KeyError(f"weights of another model: {', '.join(sorted(missing)[:3])}")
        with torch.no_grad():
            for name, value in state_dict.items():
                weights[name].copy_(value)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer as a folder that `from_pretrained` reads; adapters are merged into the weights."""
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
