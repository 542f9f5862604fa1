"""A causal language model of Hugging Face: read, made lean for training, adapted by LoRA, written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.hub import not_found
from trainers.reporting import BadInput

if TYPE_CHECKING:
    import torch

LORA_DROPOUT = 0.05


def load_model(name: str, data_dir: Path, block_size: int) -> tuple[Any, Any]:
    """Model (fp32) and tokenizer from a folder or the hub; `BadInput` if missing or if it takes no such blocks."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    path = data_dir / name
    source = str(path) if path.is_dir() else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as problem:
        raise not_found("model", name, path, problem) from problem
    most = getattr(model.config, "max_position_embeddings", None) or block_size
    if block_size > most:
        raise BadInput(
            f"The model {name} takes at most {most} tokens a block, not {block_size}; choose a smaller block size."
        )
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise BadInput(f"The tokenizer of {name} has more tokens than the model; it is that of another model.")
    _fuse_gelu(model)
    return model, tokenizer


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


def add_adapters(model: Any, rank: int) -> Any:
    """The model with LoRA's adapters beside each of its linear layers; only they are trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=LORA_DROPOUT,
        target_modules="all-linear",
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),  # GPT-2's are transposed
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


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
