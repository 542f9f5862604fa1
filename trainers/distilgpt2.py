"""Fine-tune a Hugging Face causal language model: `python -m trainers.distilgpt2 --model ID --dataset wikitext-2`.

The model is a hub id, or a folder below the data folder. The data set is `wikitext-2`, a hub id with a column of text,
or text, JSON lines or Parquet below the data folder; what is there is taken before the hub is asked. The text is packed
into blocks without padding. Before training and after every epoch the whole validation text is scored, each token once
with what precedes it in its block: `val_loss` is nats a token, `val_perplexity` its exponential, `val_word_perplexity`
that of the nats a word between white space, which models of different vocabularies can be compared by.

Under torchrun each process takes its share of every step's blocks, so that the same is trained by any number of them.

Measured on two CPU cores with bf16 instructions, random weights of distilgpt2's size (82 million), steps of 8 × 128
tokens, the parts in a loop of their own on a quiet machine: fp32 236 tokens/s, bf16 481 to 533 with 3.2 GB; with pages
of 2 MB 983; with the loss in chunks and the activation as one operation 750 to 840 with 2.6 GB, of which 1.3 GB are
weights, gradients and moments, and 0.8 GB libraries. `make bench-llm` compares the whole with an ordinary script;
one run of 8 steps on a busy machine: 278 tokens/s, 2,608 MiB; Trainer 71 and 3,396 in fp32, 90 and 3,167 in bf16.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainers import model_folder
from trainers.arguments import Parser, add_common_arguments, is_offline, real, whole
from trainers.harness import main
from trainers.hub import reach_hub
from trainers.memory import is_out_of_memory
from trainers.packing import to_blocks
from trainers.reporting import ExitCode, TrainerError
from trainers.run import LOSS_POINTS, MODEL_FOLDER, Run, Stateful, torch_device
from trainers.texts import read_text

if TYPE_CHECKING:
    import torch

# --- hyper-parameters ------------------------------------------------------------------------------------------------

BETAS = (0.9, 0.999)
WEIGHT_DECAY = 0.01  # of matrices; biases and norms have none
WARMUP = 0.06  # share of the steps in which the learning rate rises to its peak
LAST_LR = 0.1  # where the cosine ends, as a share of the peak
CLIP = 1.0  # greatest norm of the gradient
EXAMPLE_TOKENS = 8  # of the validation text, as example input of the recorded model


# --- arguments -------------------------------------------------------------------------------------------------------


def build_parser() -> Parser:
    """The parser of this trainer's command line."""
    parser = Parser(prog="trainers.distilgpt2", description="Fine-tune a Hugging Face causal language model.")
    parser.add_argument("--model", default="distilgpt2", help="hub id, or folder below the data folder [%(default)s]")
    parser.add_argument("--dataset", default="wikitext-2", help="wikitext-2, hub id, or text below the data folder")
    parser.add_argument("--block-size", type=whole(16, 1024), default=128, help="tokens a block [%(default)s]")
    parser.add_argument("--epochs", type=whole(1, 20), default=1, help="passes over the training data [%(default)s]")
    parser.add_argument("--lr", type=real(1e-7, 1e-2), default=5e-5, help="peak learning rate [%(default)s]")
    parser.add_argument("--batch-size", type=whole(1, 256), default=8, help="blocks a step, of all GPUs [%(default)s]")
    parser.add_argument(
        "--accumulation", type=whole(1, 256), default=1, help="parts a step is computed in [%(default)s]"
    )
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory for a third more time")
    parser.add_argument(
        "--lora-rank", type=whole(0, 256), default=0, help="train LoRA adapters of that rank alone; 0: all"
    )
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of the computations")
    add_common_arguments(parser)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The checked arguments; exits with a sentence if one is wrong."""
    return build_parser().parse_args(argv)


# --- loop ------------------------------------------------------------------------------------------------------------


def learning_rate_share(progress: float) -> float:
    """Of the peak, at `progress` 0 to 1: a linear rise, then a cosine down to `LAST_LR`."""
    if progress < WARMUP:
        return progress / WARMUP
    fall = (progress - WARMUP) / (1 - WARMUP)
    return LAST_LR + (1 - LAST_LR) * (1 + math.cos(math.pi * fall)) / 2


class OutOfMemory(TrainerError):
    """A step's blocks need more memory than there is."""

    exit_code = ExitCode.OUT_OF_MEMORY


class Training:
    """Model, data and optimiser on their device, and one step of them."""

    def __init__(self, run: Run) -> None:
        """Read everything; `BadInput` if a part is missing or does not fit the others."""
        args = run.args
        local = all(os.path.exists(args.data_dir / name) for name in (args.model, args.dataset))  # noqa: PTH110
        reach_hub(offline=local or is_offline(args))
        text = read_text(args.dataset, args.data_dir)

        import torch

        from trainers.causal_loss import CausalLoss
        from trainers.causal_model import add_adapters, compute_activations_twice, computes_in_half, load_model

        self.run, self.args, self.ranks = run, args, run.ranks
        self.device = torch_device(args.device, run.ranks)
        torch.manual_seed(args.seed)
        self.model, self.tokenizer = load_model(args.model, args.data_dir, args.block_size)
        self.blocks = to_blocks(text, args, self.tokenizer).to(self.device)
        self.model.to(self.device)
        self.loss = CausalLoss(self.model, half=computes_in_half(args.precision, self.device))
        if args.gradient_checkpointing:
            compute_activations_twice(self.model, args.model)
        if args.lora_rank:
            self.model = add_adapters(self.model, args.model, args.lora_rank)
        self.parameters = [weight for weight in self.model.parameters() if weight.requires_grad]
        kinds = [[w for w in self.parameters if (w.ndim > 1) is matrix] for matrix in (True, False)]
        groups: list[dict[str, Any]] = [{"params": kinds[0]}, {"params": kinds[1], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
        self.steps = run.steps(len(self.blocks.train))
        # The first step is step 1 of the rise: at 0 it would change nothing.
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_share((step + 1) / self.steps)
        )

    @property
    def parts(self) -> dict[str, Stateful]:
        """What a checkpoint holds."""
        from trainers.causal_model import Trained

        return {"model": Trained(self.model), "optimizer": self.optimizer, "schedule": self.schedule}

    @property
    def sources(self) -> dict[str, list[torch.Tensor]]:
        """What a checkpoint builds on and does not hold."""
        from trainers.causal_model import frozen_sample

        return {"the training data": [self.blocks.train], "the model's frozen weights": frozen_sample(self.model)}

    def step(self, batch: torch.Tensor) -> torch.Tensor:
        """Train on those blocks of the training data: their mean loss in nats a token."""
        import torch

        args, size = self.args, self.args.block_size
        mine = self.ranks.share(batch)
        # A process without a block adds nothing, but takes part: the others wait for its gradients.
        share = 1.0 / (len(batch) * (size - 1)) if len(mine) else 0.0
        mine = mine if len(mine) else batch[:1]
        total = torch.zeros((), device=self.device)
        try:
            for some in torch.split(mine, math.ceil(len(mine) / args.accumulation)):
                loss = self.loss(self.blocks.train[some]) * share
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
            self.ranks.sum_gradients(self.parameters)
            torch.nn.utils.clip_grad_norm_(self.parameters, CLIP)
            self.optimizer.step()
        finally:
            self.optimizer.zero_grad()
        self.schedule.step()
        return self.ranks.sum(total)

    def evaluate(self) -> dict[str, float]:
        """Loss and perplexities over the whole validation text."""
        import torch

        self.model.eval()
        ranks, blocks = self.ranks, self.blocks
        nats = torch.zeros((), dtype=torch.float64, device=self.device)
        with torch.inference_mode():
            for batch in torch.split(blocks.validation, self.args.batch_size * ranks.size):
                self.run.check()
                if len(mine := ranks.share(batch)):
                    nats += self.loss(mine)
            if ranks.leads and len(blocks.rest):
                nats += self.loss(blocks.rest)
        total = ranks.sum(nats).item()
        self.model.train()
        loss, of_word = total / blocks.scored, total / blocks.words
        # exp(710) is no float
        perplexities = {
            "val_perplexity": math.exp(min(loss, 700.0)),
            "val_word_perplexity": math.exp(min(of_word, 700.0)),
        }
        return {"val_loss": loss, **perplexities}

    def save(self) -> None:
        """Write the model as a folder that `from_pretrained` reads; where there is a record, it gets it for MLflow."""
        from trainers.causal_model import save_model

        folder = self.args.output_dir / MODEL_FOLDER
        save_model(self.model, self.tokenizer, folder)
        if self.run.tracker.active:
            validation = self.blocks.validation if len(self.blocks.validation) else self.blocks.rest
            example = self.tokenizer.decode(validation[0, :EXAMPLE_TOKENS].tolist(), skip_special_tokens=True)
            # With its answer it fits into a block, and so into what the model was trained to look at.
            contents = model_folder.complete(folder, self.tokenizer, example, self.args.block_size // 2)
            self.run.tracker.model(folder, contents)

    def out_of_memory(self) -> OutOfMemory:
        """What to say where a step's blocks do not fit: which do, found by trying."""
        args, processes = self.args, self.ranks.size
        at_once = math.ceil(math.ceil(args.batch_size / processes) / args.accumulation)
        failed = f"The memory does not suffice for {at_once} blocks of {args.block_size} tokens at once"
        fits = at_once // 2
        while fits and not self._fits(fits):
            fits //= 2
        if not fits:
            return OutOfMemory(f"{failed}; take a smaller block size, or a machine with more memory.")
        return OutOfMemory(
            f"{failed}, but it does for {fits}; train with a batch size of {fits * processes * args.accumulation}, "
            f"or with --accumulation {math.ceil(math.ceil(args.batch_size / processes) / fits)}."
        )

    def _fits(self, blocks: int) -> bool:
        import torch

        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        ahead = 0 if self.optimizer.state else 2 * sum(weight.nbytes for weight in self.parameters)
        try:
            moments = torch.empty(ahead, dtype=torch.uint8, device=self.device)
            self.loss(self.blocks.train[:1].expand(blocks, -1)).backward()  # type: ignore[no-untyped-call]
            del moments
        except (RuntimeError, MemoryError):
            return False
        finally:
            self.optimizer.zero_grad()
        return True


def train(run: Run) -> None:
    """Fine-tune as the run's arguments say, evaluate before and after every epoch, and save the model as a folder."""
    # Read when torch is imported: pages of 2 MB for large tensors, without which a CPU spends half its time on faults.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    training = Training(run)
    samples, parts, sources = len(training.blocks.train), training.parts, training.sources
    with run.training(samples=samples, device=training.device, parts=parts, sources=sources) as position:
        if not position.history:
            run.evaluated(0, training.evaluate())
        for epoch in run.epochs():
            training.model.train()
            _train_epoch(run, training, epoch)
            run.epoch_done(training.evaluate())
    if run.ranks.leads:
        training.save()


def _train_epoch(run: Run, training: Training, epoch: int) -> None:
    before = (epoch - 1) * math.ceil(len(training.blocks.train) / run.args.batch_size)
    window, tokens, since = max(1, training.steps // LOSS_POINTS), 0, time.monotonic()
    for batch in run.batches():
        number = before + run.position.batch + 1
        rate = float(training.schedule.get_last_lr()[0])
        loss: torch.Tensor | None = None
        try:
            loss = training.step(batch)
        except (RuntimeError, MemoryError) as problem:
            if not is_out_of_memory(problem):
                raise
        if loss is None:  # outside the clause the step's tensors are gone with its traceback
            raise training.out_of_memory()
        run.step_done(len(batch), loss=loss * len(batch))
        tokens += len(batch) * run.args.block_size
        if number % window == 0:
            now = time.monotonic()
            run.tracker.metrics({"lr": rate, "tokens_per_second": tokens / (now - since)}, number)
            tokens, since = 0, now


if __name__ == "__main__":
    main("distilgpt2", parse, train)
