"""The images, built by their own Dockerfiles and run as pods run them: `make test-images`, as root, some ten minutes.

`container.py` says how, and what stands in for the base image. Built are the bot and the trainers for CUDA, which train
on CPU cores as well. The CPU image is not: PyTorch's index is not everywhere in reach. Its Dockerfile differs in where
PyTorch comes from, and tests/infra reads it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.container import Image, build
from tests.images.dockerfile import IMAGES

sys.path.insert(0, str(IMAGES))
import size

pytestmark = [
    pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="namespaces and chroot need root"),
    pytest.mark.timeout(900),
]
HOME = "/var/lib/signalbox"
TRIES = """
import os, socket
for place in ("/app/x", "/opt/venv/x", "/etc/x", "/usr/local/lib/x"):
    try:
        open(place, "w")
    except OSError as error:
        print(place, error.strerror)
print("ids", os.getuid(), os.getgid(), os.getgroups())
print([line for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd", "NoNewPrivs"))])
try:
    socket.create_connection(("198.51.100.1", 443), 3)
except OSError as error:
    print("network", error.strerror)
"""


@pytest.fixture(scope="module")
def bot() -> Iterator[Image]:
    image = build("bot")
    yield image
    shutil.rmtree(image.root.parent)


@pytest.fixture(scope="module")
def trainer() -> Iterator[Image]:
    image = build("trainer-cuda")
    yield image
    shutil.rmtree(image.root.parent)


def _weights(image: Image) -> tuple[float, float]:
    """MB of packages without bytecode, and of all bytecode."""
    files = [one for one in image.root.rglob("*") if one.is_file() and not one.is_symlink()]
    bytecode = sum(one.stat().st_size for one in files if one.suffix == ".pyc")
    packages = image.root / "opt" / "venv"
    rest = sum(one.stat().st_size for one in files if one.suffix != ".pyc" and one.is_relative_to(packages))
    return rest / size.MB, bytecode / size.MB


def _reckoned(name: str) -> float:
    lock = size.tomllib.loads((size.ROOT / "uv.lock").read_text(encoding="utf-8"))
    return sum(size.looked_up(*one).megabytes() for one in size.installed(name, lock))


def test_it_may_write_nothing_and_reach_nobody(bot: Image) -> None:
    ended = bot.run("python", "-c", TRIES)
    said = ended.stdout
    assert said.count("Read-only file system") == 4, said + ended.stderr
    assert (
        "ids 10001 10001 []" in said and "CapEff:\\t0000000000000000" in said and "CapBnd:\\t0000000000000000" in said
    )
    assert "NoNewPrivs:\\t1" in said and "network Network is unreachable" in said


def test_the_bot_weighs_what_is_said(bot: Image) -> None:
    packages, bytecode = _weights(bot)
    assert packages == pytest.approx(_reckoned("bot"), rel=0.03)
    assert bytecode == pytest.approx(size.BYTECODE["bot"], rel=0.1)


def test_doctor_finds_nothing_wrong_but_trainers_that_are_elsewhere(bot: Image, tmp_path: Path) -> None:
    ended = bot.run("python", "-m", "bot", "doctor", volumes={HOME: tmp_path})
    wrong = [line for line in ended.stdout.splitlines() if line.startswith("wrong")]
    assert [line.split()[1] for line in wrong] == ["trainers"], ended.stdout + ended.stderr


def test_the_chat_works_and_keeps_what_was_said(bot: Image, tmp_path: Path) -> None:
    python = {"SIGNALBOX_TRAINER_PYTHON": "/opt/venv/bin/python"}  # it proposes only where trainings could run
    ended = bot.run(
        *("python", "-m", "bot", "chat", "--no-wait"),
        volumes={HOME: tmp_path},
        env=python,
        stdin="please train digits for 6 epochs with a learning rate of 2e-3\nwhat did we spend this month?\n",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    listed = bot.run("python", "-m", "bot", "jobs", "--json", volumes={HOME: tmp_path}, env=python)
    (proposal,) = json.loads(listed.stdout)
    assert proposal["state"] == "pending", listed.stdout
    checked = bot.run("python", "-m", "bot", "audit", "verify", volumes={HOME: tmp_path})
    assert "The audit chain is whole" in checked.stdout, checked.stdout + checked.stderr


def test_serve_starts_by_default_and_names_what_it_lacks(bot: Image, tmp_path: Path) -> None:
    ended = bot.run(volumes={HOME: tmp_path})
    assert ended.returncode == 2 and "SLACK_BOT_TOKEN" in ended.stderr, ended.stderr


def test_the_bot_draws_curves_and_speaks_to_postgresql_and_a_cluster(bot: Image, tmp_path: Path) -> None:
    script = "import psycopg, kubernetes.aio, matplotlib.figure as f, io; b = io.BytesIO(); x = f.Figure(); "
    script += (
        "x.subplots().plot([1, 2]); x.savefig(b, format='png'); print(psycopg.pq.__impl__, len(b.getvalue()) > 5000)"
    )
    assert bot.run("python", "-c", script).stdout.split() == ["binary", "True"]


def test_no_pytorch_in_the_bot(bot: Image) -> None:
    found = "import importlib.util as u; print([n for n in ('torch', 'pytest', 'pip') if u.find_spec(n)])"
    assert bot.run("python", "-c", found).stdout.strip() == "[]"


def test_no_agent_in_the_trainer(trainer: Image) -> None:
    names = "('langchain', 'langgraph', 'openai', 'slack_bolt', 'kubernetes', 'bot', 'tools', 'triton', 'pytest')"
    found = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    assert trainer.run("python", "-c", found).stdout.strip() == "[]"


def test_the_trainer_weighs_what_is_said(trainer: Image) -> None:
    packages, bytecode = _weights(trainer)
    assert packages == pytest.approx(_reckoned("trainer-cuda"), rel=0.03)
    assert bytecode == pytest.approx(size.BYTECODE["trainer-cuda"], rel=0.1)


@pytest.mark.parametrize("module", ["mnist_cnn", "distilgpt2"])
def test_each_trainer_shows_help(trainer: Image, module: str) -> None:
    ended = trainer.run("python", "-m", f"trainers.{module}", "--help")
    assert ended.returncode == 0 and "--output-dir" in ended.stdout, ended.stderr


def test_the_trainer_learns_digits_to_the_end(trainer: Image, tmp_path: Path) -> None:
    tracked = {"MLFLOW_TRACKING_URI": "sqlite:////output/mlflow.db", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
    ended = trainer.run(*trainer.command, "--epochs", "4", volumes={"/output": tmp_path}, env=tracked)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (result,) = [json.loads(line) for line in re.findall(r'^SIGNALBOX (\{"event": "result".*)$', ended.stdout, re.M)]
    assert result["metrics"]["val_accuracy"] > 0.95
    assert (tmp_path / "checkpoint.pt").stat().st_uid == 10001
    assert "The MLflow run is" in ended.stdout


def test_the_language_model_trains_offline_from_a_mounted_folder(trainer: Image, tmp_path: Path) -> None:
    data, output = tmp_path / "data", tmp_path / "output"
    data.mkdir()
    output.mkdir()
    made = trainer.run("python", "-c", TINY, volumes={"/data": data})
    assert made.returncode == 0, made.stderr
    arguments = ["--model", "tiny", "--dataset", "text", "--block-size", "32", "--epochs", "1", "--data-dir", "/data"]
    ended = trainer.run(
        *("python", "-m", "trainers.distilgpt2", *arguments, "--output-dir", "/output"),
        volumes={"/data": data, "/output": output},
        env={"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (output / "model" / "model.safetensors").exists()


TINY = """
from pathlib import Path
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE(vocab={one: n for n, one in enumerate(symbols)}, merges=[]))
tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained("/data/tiny")
config = GPT2Config(vocab_size=256, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
GPT2LMHeadModel(config).save_pretrained("/data/tiny")
Path("/data/text").mkdir()
for name in ("train", "valid"):
    Path(f"/data/text/{name}.txt").write_text("signal is green\\n" * 300)
"""
