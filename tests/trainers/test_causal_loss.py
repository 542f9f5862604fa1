"""The loss without whole logits, beside PyTorch's own over whole ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from trainers import causal_loss
from trainers.causal_loss import CausalLoss, head_loss


def tiny(**more: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=97, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    config.update({"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, **more})
    return GPT2LMHeadModel(config)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So small that a few tokens and a hundred words come in several chunks, the last one shorter."""
    monkeypatch.setattr(causal_loss, "LOGITS_BYTES", {"cpu": 97 * 4 * 7})
    monkeypatch.setattr(causal_loss, "ROWS_BYTES", {"cpu": 97 * 4 * 3})
    monkeypatch.setattr(causal_loss, "WEIGHT_ROWS", 40)
    yield


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-5), (True, 2e-2)])
def test_loss_and_gradients_are_those_of_whole_logits(half: bool, tolerance: float) -> None:
    model, blocks = tiny(), torch.randint(97, (5, 9))
    logits = model(input_ids=blocks).logits
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), blocks[:, 1:].flatten(), reduction="sum")
    (expected / 40).backward()
    theirs = {name: grad.clone() for name, grad in gradients(model).items()}
    model.zero_grad()
    loss = CausalLoss(model, half=half)
    assert loss.chunked
    found = loss(blocks)
    (found / 40).backward()
    assert found.item() == pytest.approx(expected.item(), rel=tolerance / 10)
    ours = gradients(model)
    assert ours.keys() == theirs.keys()
    for name, grad in theirs.items():
        assert (ours[name] - grad).norm() <= tolerance * grad.norm() + 1e-9, name


def test_autograd_agrees_with_differences() -> None:
    hidden = torch.randn(11, 4, dtype=torch.float32, requires_grad=True)
    weight, targets = torch.randn(97, 4, requires_grad=True), torch.randint(97, (11,))
    expected = torch.autograd.grad(cross_entropy(hidden @ weight.t(), targets, reduction="sum") * 3, (hidden, weight))
    found = torch.autograd.grad(head_loss(hidden, weight, targets, half=False) * 3, (hidden, weight))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_frozen_head_gets_no_gradient_and_an_evaluation_none() -> None:
    model, blocks = tiny(tie_word_embeddings=False), torch.randint(97, (2, 9))
    loss = CausalLoss(model, half=False)
    model.lm_head.weight.requires_grad_(False)
    loss(blocks).backward()
    assert model.lm_head.weight.grad is None
    assert model.transformer.wte.weight.grad is not None
    with torch.inference_mode():
        assert not loss(blocks).requires_grad


def test_a_model_that_does_more_with_its_logits_gives_them_itself() -> None:
    """Granite divides them; taken apart, it would train towards another loss."""
    from transformers import GraniteConfig, GraniteForCausalLM

    config = GraniteConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        logits_scaling=8.0,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    model, blocks = GraniteForCausalLM(config), torch.randint(97, (2, 9))
    loss = CausalLoss(model, half=False)
    assert not loss.chunked
    logits = model(input_ids=blocks).logits
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), blocks[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(loss(blocks), expected)
