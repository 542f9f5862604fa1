"""Fine-tune a Hugging Face causal language model: `python -m trainers.distilgpt2 --model ID --dataset wikitext-2`.

The model is a hub id, or a folder below the data folder. The data set is `wikitext-2`, a hub id with a column of text,
or a text file or folder of text files below the data folder; what is there is taken before the hub is asked. The text
is packed into blocks without padding. `val_loss` is nats a token over the validation part, `val_perplexity` its
exponential; both are also measured before training, as epoch 0.

Measured on two CPU cores, with random weights of distilgpt2's size (82 million) and blocks of 128: 1.9 blocks/s, so
that an epoch of WikiText-2 takes hours there; it is a GPU's work.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.arguments import Parser, add_common_arguments, is_offline, real, whole
from trainers.harness import main
from trainers.reporting import BadInput, note, one_line, say
from trainers.run import Run, Stateful, torch_device

if TYPE_CHECKING:
    import torch
    from torch import nn

# --- hyper-parameters ------------------------------------------------------------------------------------------------

BETAS = (0.9, 0.999)
WEIGHT_DECAY = 0.01
WARMUP = 0.06  # share of the steps in which the learning rate rises to its peak
LAST_LR = 0.1  # where the cosine ends, as a share of the peak
CLIP = 1.0  # greatest norm of the gradient
HELD_OUT = 0.05  # of text that brings no validation part: its end

DATASETS = {"wikitext-2": ("Salesforce/wikitext", "wikitext-2-raw-v1")}  # short name → hub id and configuration
TEXT_SUFFIXES = (".txt", ".raw")
LINES_AT_ONCE = 1000  # handed to the tokenizer, which spreads them over its threads
HUB_SECONDS = 5.0  # for the hub to answer before it is taken for unreachable


# --- arguments -------------------------------------------------------------------------------------------------------


def build_parser() -> Parser:
    """The parser of this trainer's command line."""
    parser = Parser(prog="trainers.distilgpt2", description="Fine-tune a Hugging Face causal language model.")
    parser.add_argument("--model", default="distilgpt2", help="hub id, or folder below the data folder [%(default)s]")
    parser.add_argument("--dataset", default="wikitext-2", help="wikitext-2, hub id, or text below the data folder")
    parser.add_argument("--block-size", type=whole(16, 1024), default=128, help="tokens a block [%(default)s]")
    parser.add_argument("--epochs", type=whole(1, 20), default=1, help="passes over the training data [%(default)s]")
    parser.add_argument("--lr", type=real(1e-7, 1e-2), default=5e-5, help="peak learning rate [%(default)s]")
    parser.add_argument("--batch-size", type=whole(1, 256), default=8, help="blocks a step [%(default)s]")
    add_common_arguments(parser)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The checked arguments; exits with a sentence if one is wrong."""
    return build_parser().parse_args(argv)


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """Lines of text with their ends; `validation` is empty where a data set brings none."""

    train: list[str]
    validation: list[str]


def read_text(name: str, data_dir: Path) -> Text:
    """The text of a file, of a folder's files, or of a data set of the hub; `BadInput` if there is none."""
    path = data_dir / name
    if not path.exists():
        return _hub_text(name, path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in TEXT_SUFFIXES)
    train: list[str] = []
    validation: list[str] = []
    for file in files:
        if "test" in file.stem and len(files) > 1:
            continue
        part = validation if "valid" in file.stem and len(files) > 1 else train
        try:
            part += file.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, UnicodeDecodeError) as problem:
            raise BadInput(f"{file} cannot be read as UTF-8 text ({problem}); convert it or take it away.") from problem
    if not train:
        raise BadInput(f"{path} holds no text to train on; put files named *.txt there.")
    return Text(train, validation)


def _hub_text(name: str, path: Path) -> Text:
    from datasets import load_dataset

    try:
        parts = load_dataset(*DATASETS.get(name, (name,)))
    except Exception as problem:  # the library and its storage raise whatever they like
        raise _not_found("data set", name, path, problem) from problem
    train = parts.get("train")
    validation = parts.get("validation", parts.get("test"))
    if train is None:
        raise BadInput(f"The data set {name} has no part named train; choose another, or put text at {path}.")
    column = next(
        (c for c in ("text", *train.column_names) if getattr(train.features.get(c), "dtype", "") == "string"), None
    )
    if column is None:
        raise BadInput(f"The data set {name} has no column of text; choose another, or put text at {path}.")
    return Text(list(train[column]), list(validation[column]) if validation is not None else [])


def _not_found(kind: str, name: str, path: Path, problem: Exception) -> BadInput:
    reason = f"{type(problem).__name__}: {one_line(str(problem))[:160]}"
    return BadInput(
        f"The {kind} {name} is neither at {path} nor to be had from the Hugging Face hub ({reason}); "
        "put it there, or train with a connection to the hub and a name that it knows."
    )


def reach_hub(offline: bool) -> None:
    """Make the hub's libraries, before they are imported, use their cache alone if the hub does not answer.

    They would try for minutes; one short request tells the same.
    """
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "10")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not offline:
        try:
            request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 - the address is the operator's own
            with contextlib.suppress(urllib.error.HTTPError):  # an answer, though not a friendly one
                urllib.request.urlopen(request, timeout=HUB_SECONDS).close()  # noqa: S310
            return
        except (OSError, ValueError):
            note("The Hugging Face hub does not answer; what is in its cache is used.")
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"


def pack(lines: Sequence[str], tokenizer: Any, block_size: int) -> torch.Tensor:
    """The lines' tokens, one after the other, in blocks (n, block_size) int64; the rest at the end is dropped."""
    import torch

    ids: list[int] = []
    for first in range(0, len(lines), LINES_AT_ONCE):
        for row in tokenizer(lines[first : first + LINES_AT_ONCE])["input_ids"]:
            ids += row
    blocks = len(ids) // block_size
    return torch.tensor(ids[: blocks * block_size], dtype=torch.int64).view(blocks, block_size)


def to_blocks(text: Text, args: argparse.Namespace, tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Training and validation blocks; `BadInput` if either part is shorter than a block."""
    train = pack(text.train, tokenizer, args.block_size)
    if text.validation:
        validation = pack(text.validation, tokenizer, args.block_size)
    else:
        held_out = max(1, round(len(train) * HELD_OUT))
        train, validation = train[:-held_out], train[-held_out:]
    if not len(train) or not len(validation):
        raise BadInput(
            f"The data set {args.dataset} gives {len(train)} training and {len(validation)} validation blocks of "
            f"{args.block_size} tokens; take more text or a smaller block size."
        )
    say(f"{len(train)} training and {len(validation)} validation blocks of {args.block_size} tokens")
    return train, validation


# --- model -----------------------------------------------------------------------------------------------------------


def load_model(name: str, data_dir: Path, block_size: int) -> tuple[nn.Module, Any]:
    """Model and tokenizer from a folder or the hub; `BadInput` if they are missing or do not take such blocks."""
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
        raise _not_found("model", name, path, problem) from problem
    most = getattr(model.config, "max_position_embeddings", block_size)
    if block_size > most:
        raise BadInput(
            f"The model {name} takes at most {most} tokens a block, not {block_size}; choose a smaller block size."
        )
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise BadInput(f"The tokenizer of {name} has more tokens than the model; it is that of another model.")
    return model, tokenizer


def next_token_loss(model: nn.Module, blocks: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of each block's tokens after its first: blocks (n, length) → scalar."""
    import torch
    from torch.nn.functional import cross_entropy

    with torch.autocast(blocks.device.type, dtype=torch.bfloat16, enabled=blocks.is_cuda):
        logits = model(input_ids=blocks).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1).float(), blocks[:, 1:].flatten())


def learning_rate_share(progress: float) -> float:
    """Of the peak, at `progress` 0 to 1: a linear rise, then a cosine down to `LAST_LR`."""
    if progress < WARMUP:
        return progress / WARMUP
    fall = (progress - WARMUP) / (1 - WARMUP)
    return LAST_LR + (1 - LAST_LR) * (1 + math.cos(math.pi * fall)) / 2


# --- loop ------------------------------------------------------------------------------------------------------------


def train(run: Run) -> None:
    """Fine-tune as the run's arguments say, evaluate before and after every epoch, and save the model as a folder."""
    args = run.args
    local = all((args.data_dir / name).exists() for name in (args.model, args.dataset))
    reach_hub(offline=local or is_offline(args))
    text = read_text(args.dataset, args.data_dir)

    import torch

    device = torch_device(args.device)
    torch.manual_seed(args.seed)
    model, tokenizer = load_model(args.model, args.data_dir, args.block_size)
    data, validation = (blocks.to(device) for blocks in to_blocks(text, args, tokenizer))
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=BETAS, weight_decay=WEIGHT_DECAY)
    steps = args.epochs * math.ceil(len(data) / args.batch_size)
    # The first step is step 1 of the rise: at 0 it would change nothing.
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share((step + 1) / steps))
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "schedule": schedule}
    with run.training(samples=len(data), device=device, parts=parts) as position:
        if not position.history:
            run.evaluated(0, evaluate(model, validation, args.batch_size, run.check))
        for _ in run.epochs():
            model.train()
            for batch in run.batches():
                loss = next_token_loss(model, data[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                run.step_done(len(batch), loss=loss * len(batch))
            run.epoch_done(evaluate(model, validation, args.batch_size, run.check))
    save_model(run, model, tokenizer)


def evaluate(model: nn.Module, blocks: torch.Tensor, batch_size: int, check: Callable[[], None]) -> dict[str, float]:
    """Loss a token and perplexity over the blocks; `check` is asked between batches and may raise."""
    import torch

    model.eval()
    total = 0.0
    with torch.inference_mode():
        for batch in torch.split(blocks, batch_size):
            check()
            total += next_token_loss(model, batch).item() * len(batch)
    # Blocks are of one length, so that the mean over blocks is the mean over tokens.
    loss = total / len(blocks)
    return {"val_loss": loss, "val_perplexity": math.exp(min(loss, 700.0))}  # exp(710) is no float


def save_model(run: Run, model: Any, tokenizer: Any) -> None:
    """Write model and tokenizer as a folder that `from_pretrained` reads, and record it."""
    folder = run.args.output_dir / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    run.tracker.artifact(folder)


if __name__ == "__main__":
    main("distilgpt2", parse, train)
