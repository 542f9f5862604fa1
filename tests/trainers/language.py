"""A data folder for tests of the language model: a tiny random GPT-2 with a tokenizer of bytes, and text."""

from __future__ import annotations

from pathlib import Path

import torch


def make_folder(folder: Path, **config: float) -> Path:
    """`tiny`, a model of some thousand weights; `text`, a folder with train, valid and test; `short.txt`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder / "tiny")
    shape = {"vocab_size": 256, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, **config}
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0)).save_pretrained(folder / "tiny")
    text = "".join(f"signal {i} is {'green' if i % 2 else 'red'}\n" for i in range(400))
    (folder / "text").mkdir()
    (folder / "text" / "train.txt").write_text(text)
    (folder / "text" / "valid.txt").write_text(text[:700])
    (folder / "text" / "test.txt").write_text("not to be read")
    (folder / "short.txt").write_text("too short")
    return folder
