"""Next-token cross-entropy of a causal language model, without its logits as a whole.

The logits are the weight of a small language model: at 50,257 entries a vocabulary, a step of 8 × 128 tokens holds
206 MB of them in fp32, and as much again for their gradient. Here the head is multiplied a few hundred tokens at a
time into one buffer, which then becomes the gradient in place, and from it come the gradients of the hidden states and
of the head's weight: nothing is computed twice, and what is kept for the backward pass are those two gradients alone.
Softmax, loss and the weight's gradient are summed in fp32 whatever the logits' type is.

`CausalLoss` takes a model of Hugging Face apart into transformer and head, and tries the parts on some tokens before it
trusts them; a model that does more with its logits (a bias, a scale, a cap) gives them itself.

This module imports torch; trainers import it where they train.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import cross_entropy

# Bytes of logits at once, and of those in fp32: a GPU wants long rows, a CPU what its caches hold.
LOGITS_BYTES = {"cuda": 1 << 29, "cpu": 1 << 24}
ROWS_BYTES = {"cuda": 1 << 28, "cpu": 1 << 23}
WEIGHT_ROWS = 8192  # of the head's gradient that are added up at a time, for the same reason
PROBE_TOKENS = 16
PROBE_TOLERANCE = 1e-3  # of the logits; what a model does to them beside shows in every one


class CausalLoss:
    """Sums the next-token loss of blocks of tokens under a model."""

    def __init__(self, model: Any, *, half: bool) -> None:
        """`half`: compute in bf16 what autocast would. The model may be wrapped by peft afterwards, not before."""
        self._model = model
        self._half = half
        self._head: nn.Linear | None = model.get_output_embeddings() if self._comes_apart() else None
        model.get_input_embeddings().register_forward_hook(_lighten_backward)

    @property
    def chunked(self) -> bool:
        """Whether whole logits are spared."""
        return self._head is not None

    def __call__(self, blocks: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats, summed over each block's tokens after its first: int (n, length) → scalar fp32."""
        blocks = blocks.long()
        targets = blocks[:, 1:].flatten()
        with torch.autocast(blocks.device.type, dtype=torch.bfloat16, enabled=self._half):
            if self._head is None:
                logits = self._model(input_ids=blocks, use_cache=False).logits
                return cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets, reduction="sum")
            hidden = self._model.base_model(input_ids=blocks, use_cache=False)[0]
        if torch.is_grad_enabled() and blocks.device.type == "cpu":
            _give_back_free_memory()
        return head_loss(hidden[:, :-1].flatten(0, 1), self._head.weight, targets, half=self._half)

    def _comes_apart(self) -> bool:
        """Whether transformer and head by themselves give the model's own logits."""
        head = self._model.get_output_embeddings()
        if self._model.base_model is self._model or not isinstance(head, torch.nn.Linear) or head.bias is not None:
            return False
        probe = torch.arange(min(PROBE_TOKENS, head.out_features), device=head.weight.device)[None]
        training = self._model.training
        self._model.eval()
        try:
            with torch.inference_mode():
                expected = self._model(input_ids=probe, use_cache=False).logits
                found = head(self._model.base_model(input_ids=probe, use_cache=False)[0])
        except (TypeError, IndexError, AttributeError, RuntimeError, ValueError):
            return False  # a transformer that is called in another way
        finally:
            self._model.train(training)
        return found.shape == expected.shape and bool((found - expected).norm() <= PROBE_TOLERANCE * expected.norm())


def head_loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, half: bool) -> torch.Tensor:
    """Cross-entropy of `hidden @ weight.T`, summed: (n, d), (vocabulary, d), int64 (n,) → scalar fp32, in nats."""
    # Asked here: inside a Function gradients are always off.
    wanted = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return cast("torch.Tensor", _HeadLoss.apply(hidden, weight, targets, half, wanted))


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Any:
        hidden, weight, targets, half, wanted = given
        with torch.autocast(hidden.device.type, enabled=False):
            total, *gradients = _forward(hidden, weight, targets, half=half, wanted=wanted)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        gradients = [None if one is None else _scaled(one, outer[0]) for one in ctx.saved_tensors]
        return *gradients, None, None, None


def _lighten_backward(_module: Any, _given: Any, embedded: torch.Tensor) -> None:
    """On a CPU, give back the layers' activations before the embedding's gradient, a second one of the head's size."""
    if embedded.requires_grad and embedded.device.type == "cpu":
        embedded.register_hook(lambda _: _give_back_free_memory())  # type: ignore[no-untyped-call]


def _give_back_free_memory() -> None:
    """Before a step's peaks: the heap keeps what was freed, some 150 MB each time for 82 million weights."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own; musl has none
        if trim is not None:
            trim(0)


def _scaled(gradient: torch.Tensor, outer: torch.Tensor) -> torch.Tensor:
    """In place: these gradients are used once, and a copy of the head's is 150 MB."""
    if outer.device.type != "cpu" or outer.item() != 1.0:  # asking makes a GPU wait
        gradient.mul_(outer)
    return gradient


def _forward(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, half: bool, wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """The loss, and its gradients by `hidden` and by `weight` where they are wanted."""
    kind, device, vocabulary = torch.bfloat16 if half else torch.float32, hidden.device, weight.shape[0]
    states, head = hidden.to(kind), weight.to(kind)
    at_once = max(1, LOGITS_BYTES.get(device.type, 1 << 24) // (vocabulary * kind.itemsize))
    buffer = torch.empty(min(at_once, len(states)), vocabulary, dtype=kind, device=device)
    by_hidden = torch.empty_like(hidden) if wanted else None
    by_weight = torch.empty_like(weight) if wanted and weight.requires_grad else None
    total = torch.zeros((), dtype=torch.float32, device=device)
    for first in range(0, len(states), at_once):
        some = states[first : first + at_once]
        logits = torch.mm(some, head.t(), out=buffer[: len(some)])
        total += _softmax_in_place(logits, targets[first : first + at_once], wanted=wanted)
        if by_hidden is not None:
            by_hidden[first : first + at_once] = logits @ head
        if by_weight is not None:
            for row in range(0, vocabulary, WEIGHT_ROWS):
                part, rows = logits[:, row : row + WEIGHT_ROWS].t() @ some, by_weight[row : row + WEIGHT_ROWS]
                rows.add_(part) if first else rows.copy_(part)
    if by_weight is not None and not len(states):
        by_weight.zero_()
    return total, by_hidden, by_weight


def _softmax_in_place(logits: torch.Tensor, targets: torch.Tensor, *, wanted: bool) -> torch.Tensor:
    """The summed loss of those tokens; the logits become the loss's gradient by them if that is wanted."""
    at_once = max(1, ROWS_BYTES.get(logits.device.type, 1 << 23) // (logits.shape[1] * 4))
    total = torch.zeros((), dtype=torch.float32, device=logits.device)
    for rows, following in zip(torch.split(logits, at_once), torch.split(targets[:, None], at_once), strict=True):
        logs = torch.log_softmax(rows.float(), dim=-1)
        total -= logs.gather(1, following).sum()
        if wanted:
            logs.exp_().scatter_add_(1, following, torch.full_like(logs[:, :1], -1.0))
            rows.copy_(logs)
    return total
