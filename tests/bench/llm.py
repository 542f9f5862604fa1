"""The language-model trainer beside an ordinary script of Hugging Face's Trainer: `make bench-llm`.

Same model (by default distilgpt2's shape with random weights), same text, same blocks, same number of steps; each run
is a process of its own, and the rows take turns, so that a noisy machine is noisy for all. Tokens a second are the
training's alone, without loading and evaluating: the median of the steps after the first few. CPU seconds a step say
what it took where others held the processors. Memory is the most that the process ever held. The validation loss after
the same tokens says that speed was not bought with learning: roughly, for the ordinary script's learning rate falls
along a line without a warm-up, and it leaves out the text's rest and each block's first token, which ours scores too.
It runs in the trainers' environment, without a network.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GOAL_FP32, GOAL_BF16, GOAL_MEMORY = 1.8, 1.1, 0.8
WARM = 3  # steps that are not counted: memory is laid out, kernels are chosen
WORDS, SENTENCE = 6000, 12  # of the made text's vocabulary; words a sentence
TRAINERS = {"Trainer fp32": ("--theirs", "fp32"), "Trainer bf16": ("--theirs", "bf16"), "ours": ("--ours", "")}


# -- model and text ------------------------------------------------------------------------------------------------


def make_text(folder: Path, tokens: int) -> None:
    """Sentences of made words whose order can be learnt a little; about so many tokens, and a validation part."""
    chance = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(WORDS)]
    follow = {word: chance.sample(words, 8) for word in words}

    def sentences(count: int) -> str:
        lines, word = [], words[0]
        for _ in range(count):
            line = []
            for _ in range(SENTENCE):
                word = chance.choice(follow[word]) if chance.random() < 0.8 else chance.choice(words)
                line.append(word)
            lines.append(" ".join(line) + ".\n")
        return "".join(lines)

    (folder / "train.txt").write_text(sentences(tokens // SENTENCE + 1))
    (folder / "valid.txt").write_text(sentences(150))


def make_model(folder: Path, text: str) -> None:
    """distilgpt2's shape with random weights, and a byte-level BPE of the text under its vocabulary's size."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers import trainers as training
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    tokenizer.train_from_iterator(
        text.splitlines(keepends=True),
        training.BpeTrainer(vocab_size=50257, initial_alphabet=alphabet, special_tokens=special, show_progress=False),
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=special[0], bos_token=special[0], pad_token=special[0]
    ).save_pretrained(folder)
    torch.manual_seed(0)
    end = tokenizer.token_to_id(special[0])
    GPT2LMHeadModel(GPT2Config(n_layer=6, bos_token_id=end, eos_token_id=end)).save_pretrained(folder)


# -- the runs ------------------------------------------------------------------------------------------------------


def theirs(given: argparse.Namespace, precision: str) -> None:
    """An ordinary script: Trainer with its defaults, the collator for language modelling, blocks by `map`."""
    import torch
    from datasets import load_dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    source, size = str(given.data / "model"), given.block_size
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    files = {name: str(given.data / "text" / f"{name}.txt") for name in ("train", "valid")}
    raw = load_dataset("text", data_files=files, cache_dir=str(given.out / "cache"), keep_linebreaks=True)

    def blocks(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        ids = [number for row in tokenizer(rows["text"])["input_ids"] for number in row]
        return {"input_ids": [ids[i : i + size] for i in range(0, len(ids) - size + 1, size)]}

    data = raw.map(blocks, batched=True, batch_size=100_000, remove_columns=["text"])
    times: list[tuple[float, float]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append((time.perf_counter(), time.process_time()))

    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(given.out),
            per_device_train_batch_size=given.batch_size,
            per_device_eval_batch_size=given.batch_size,
            max_steps=given.steps,
            learning_rate=given.lr,
            bf16=precision == "bf16",
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=0,
        ),
        train_dataset=data["train"],
        eval_dataset=data["valid"],
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        callbacks=[Clock()],
    )
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    print(json.dumps({"times": times, "loss": loss, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}))


def ours(given: argparse.Namespace) -> None:
    """The trainer as the engine starts it, with a clock at the end of each step."""
    from trainers import distilgpt2
    from trainers.harness import main
    from trainers.run import Run

    times: list[tuple[float, float]] = []
    step_done = Run.step_done

    def clocked(run: Run, samples: int, **sums: Any) -> None:
        step_done(run, samples, **sums)
        times.append((time.perf_counter(), time.process_time()))

    Run.step_done = clocked  # type: ignore[method-assign]
    arguments = ["--model", "model", "--dataset", "text", "--data-dir", given.data, "--output-dir", given.out]
    arguments += ["--batch-size", given.batch_size, "--block-size", given.block_size, "--lr", given.lr]

    def train(run: Run) -> None:
        distilgpt2.train(run)
        loss = run.position.history[-1]["val_loss"]
        mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(json.dumps({"times": times, "loss": loss, "mb": mb}), flush=True)

    main("distilgpt2", lambda: distilgpt2.parse(list(map(str, arguments))), train)


def measured(row: str, given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """One run in a process of its own: tokens a second, CPU seconds a step, MiB, validation loss in nats a token."""
    kept = [
        f"--{name.replace('_', '-')}={getattr(given, name)}" for name in ("steps", "batch_size", "block_size", "lr")
    ]
    role = "=".join(part for part in TRAINERS[row] if part)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.llm", role, f"--data={folder}", f"--out={out}", *kept],
            cwd=ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"times"')]
    if not lines:
        sys.exit(f"{row} ended with status {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    found = json.loads(lines[-1])
    pairs = list(zip(found["times"], found["times"][1:], strict=False))[WARM:]
    wall, cpu = (statistics.median(after[kind] - before[kind] for before, after in pairs) for kind in (0, 1))
    tokens = given.batch_size * given.block_size
    return {"pace": tokens / wall, "cpu": cpu, "mb": found["mb"], "loss": found["loss"]}


# -- the comparison ------------------------------------------------------------------------------------------------


def compare(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text"
        text.mkdir()
        needed = given.steps * given.batch_size * given.block_size
        prepare(given, folder, needed)
        found: dict[str, list[dict[str, float]]] = {row: [] for row in TRAINERS}
        for number in range(given.repeats):
            for row in TRAINERS:
                one = measured(row, given, folder)
                found[row].append(one)
                told = "  ".join(f"{key} {value:.4g}" for key, value in one.items())
                print(f"  {number + 1}/{given.repeats} {row}: {told}", file=sys.stderr, flush=True)
    middle = {row: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for row, runs in found.items()}
    report(given, middle)


def prepare(given: argparse.Namespace, folder: Path, needed: int) -> None:
    """Model and text below the folder; exactly as many training blocks as the steps take."""
    from transformers import AutoTokenizer

    text = folder / "text"
    if given.text:
        lines = given.text.read_text(encoding="utf-8").splitlines(keepends=True)
        held_out = max(1, min(200, len(lines) // 20))
        (text / "train.txt").write_text("".join(lines[:-held_out]), encoding="utf-8")
        (text / "valid.txt").write_text("".join(lines[-held_out:]), encoding="utf-8")
    else:
        make_text(text, needed)
    content = (text / "train.txt").read_text(encoding="utf-8")
    if given.model:
        (folder / "model").symlink_to(given.model.resolve(), target_is_directory=True)
    else:
        make_model(folder / "model", content)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    kept, count = [], 0
    for line in content.splitlines(keepends=True):
        if count >= needed:
            break
        kept.append(line)
        count += len(tokenizer(line)["input_ids"])
    if count < needed:
        sys.exit(f"The text has {count} tokens and the steps need {needed}; give more text or take fewer --steps.")
    (text / "train.txt").write_text("".join(kept), encoding="utf-8")


def report(given: argparse.Namespace, middle: dict[str, dict[str, float]]) -> None:
    """The table, ratios and whether the goals are met."""
    print(
        f"{given.steps} steps of {given.batch_size} × {given.block_size} tokens, medians of {given.repeats} runs each"
    )
    print(f"{'':14}{'tokens/s':>10}{'CPU s/step':>12}{'peak MiB':>10}{'val loss':>10}{'perplexity':>12}")
    for row, one in middle.items():
        print(
            f"{row:14}{one['pace']:10.0f}{one['cpu']:12.2f}{one['mb']:10.0f}{one['loss']:10.3f}{math.exp(one['loss']):12.1f}"
        )
    mine, single, half = middle["ours"], middle["Trainer fp32"], middle["Trainer bf16"]
    goals = [
        ("tokens/s against Trainer fp32", mine["pace"] / single["pace"], GOAL_FP32, True),
        ("tokens/s against Trainer bf16", mine["pace"] / half["pace"], GOAL_BF16, True),
        ("memory against Trainer bf16", mine["mb"] / half["mb"], GOAL_MEMORY, False),
        ("memory against Trainer fp32", mine["mb"] / single["mb"], GOAL_MEMORY, False),
    ]
    for name, ratio, goal, least in goals:
        met = ratio >= goal if least else ratio <= goal
        print(f"{name}: {ratio:.2f}×, goal {'≥' if least else '≤'} {goal:g}× {'met' if met else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of a real model; its shape with random weights otherwise")
    parser.add_argument("--text", type=Path, help="text file; made otherwise")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--theirs", choices=("fp32", "bf16"), help=argparse.SUPPRESS)
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.theirs:
        theirs(given, given.theirs)
    elif given.ours:
        ours(given)
    else:
        compare(given)


if __name__ == "__main__":
    main()
