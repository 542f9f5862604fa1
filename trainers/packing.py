"""Text as the blocks of tokens that a language model is trained and validated on."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainers.reporting import BadInput, say
from trainers.texts import CACHE, Text, token_numbers

if TYPE_CHECKING:
    import torch

HELD_OUT = 0.05  # of text that brings no validation part: its end


@dataclass(frozen=True)
class Blocks:
    """Token numbers, int32 on the training's device, packed."""

    train: torch.Tensor  # (n, block_size)
    validation: torch.Tensor  # (m, block_size), each beginning with the last token of the one before
    rest: torch.Tensor  # (≤ 1, < block_size): the end of the validation text
    words: int  # of the validation text, between white space

    @property
    def scored(self) -> int:
        """Validation tokens that have a predecessor in their block: each once."""
        return sum(len(part) * (part.shape[1] - 1) for part in (self.validation, self.rest))

    def to(self, device: torch.device) -> Blocks:
        """The same on that device."""
        return Blocks(self.train.to(device), self.validation.to(device), self.rest.to(device), self.words)


def to_blocks(text: Text, args: argparse.Namespace, tokenizer: Any) -> Blocks:
    """The text in blocks; `BadInput` if either part is too short."""
    caches = [args.data_dir / CACHE, args.output_dir / CACHE]
    size = args.block_size
    numbers = token_numbers(text.train, tokenizer, caches)
    count = len(numbers) // size
    train = numbers[: count * size].view(count, size)
    if text.validation is not None:
        validation = token_numbers(text.validation, tokenizer, caches)
        words = sum(len(piece.split()) for piece in text.validation)
    else:
        held_out = max(1, round(count * HELD_OUT))
        train, validation = train[:-held_out], train[-held_out:].flatten()
        words = len(tokenizer.decode(validation.tolist()).split())
    if not len(train) or len(validation) < 2:
        raise BadInput(
            f"The data set {args.dataset} gives {len(train)} training blocks of {size} tokens and {len(validation)} "
            "tokens to validate with; take more text or a smaller block size."
        )
    blocks, rest = _scored_once(validation, tokenizer.bos_token_id, size)
    say(f"{len(train)} training blocks of {size} tokens, {len(validation)} tokens to validate with")
    return Blocks(train, blocks, rest, max(1, words))


def _scored_once(numbers: torch.Tensor, begin: int | None, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks that share one token with the next, so that each token but the first of all has a predecessor."""
    import torch

    if begin is not None:
        numbers = torch.cat([numbers.new_tensor([begin]), numbers])
    count = (len(numbers) - 1) // (size - 1)
    blocks = numbers.unfold(0, size, size - 1) if count else numbers.new_empty((0, size))
    rest = numbers[count * (size - 1) :][None]
    return blocks.contiguous(), rest if rest.shape[1] > 1 else rest[:0]
