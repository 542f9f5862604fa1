"""Text from files of every kind, their damage told, and tokens made once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainers.language import make_folder
from trainers.distilgpt2 import parse
from trainers.packing import to_blocks
from trainers.reporting import BadInput
from trainers.texts import CACHE, Text, read_text, token_numbers

ROWS = ["first document", "second, with “quotes” and \u2028 a separator", "third\n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "tiny")


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"id": "x", "text": row}, ensure_ascii=False) for row in ROWS)
    )
    (tmp_path / "b.json").write_text(json.dumps([{"body": row} for row in ROWS]))
    table = pyarrow.table({"id": [1, 2, 3, 4], "content": [*ROWS, None]})
    parquet.write_table(table, tmp_path / "c.parquet")
    for name in ("a.jsonl", "b.json", "c.parquet"):
        assert read_text(name, tmp_path) == Text(ROWS, None), name


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"text": "fine"}\n\n{"text": "broken\n', "line 3, is not JSON"),
        ("a.jsonl", b'{"text": "fine"}\n{"txt": "no"}\n', "row 2, has no text in a field “text”"),
        ("a.jsonl", b'{"text": "\xff"}\n', "UTF-8"),
        ("a.json", b"[1, 2", "is not JSON"),
        ("a.jsonl", b'{"text": "fine"}\n' + b"[" * 100_000, "line 2, is not JSON"),
        ("a.parquet", b"PAR1 and no more", "cannot be read as Parquet"),
        ("a.txt", b"\xff\xfe\xfa", "UTF-8"),
        ("a.txt", b"", "holds no text"),
    ],
)
def test_damage_is_told_with_its_place(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=told) as raised:
        read_text(name, tmp_path)
    assert name in str(raised.value)


def test_a_line_ends_at_its_line_feed_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one page\x0canother\r\nsome\u2028line\x85and more".encode())
    assert read_text("a.txt", tmp_path).train == ["one page\x0canother\n", "some\u2028line\x85and more"]


def test_half_a_character_is_replaced(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "half \\ud83d, whole \\ud83d\\ude00\\n"}\n')
    text = read_text("a.jsonl", tmp_path)
    assert text.train == ["half \ufffd, whole \U0001f600\n"]
    assert len(token_numbers(text.train, tokenizer, []))


def test_a_data_set_of_the_hub_may_have_rows_without_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    for part in ("train", "validation"):
        parquet.write_table(pyarrow.table({"text": ["a", None, "b"]}), tmp_path / "set" / f"{part}.parquet")
    monkeypatch.chdir(tmp_path)  # the hub's library takes a folder for a data set's name
    assert read_text("set", tmp_path / "data") == Text(["a", "b"], ["a", "b"])


def test_tables_without_text_are_told(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"label": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="its columns are label"):
        read_text("a.parquet", tmp_path)


def test_an_empty_validation_part_is_no_reason_to_lend_the_end(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("some text to train on\n" * 20)
    (tmp_path / "valid.txt").write_text("")
    text = read_text(".", tmp_path)
    assert text.validation == []
    args = parse(["--block-size", "16", "--data-dir", str(folder), "--output-dir", str(tmp_path)])
    with pytest.raises(BadInput, match="0 tokens to validate with"):
        to_blocks(text, args, tokenizer)


def test_tokens_are_made_once_and_damaged_ones_anew(
    folder: Path, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return tokenizer(*args, **kwargs)

    counted.eos_token_id, counted.backend_tokenizer = tokenizer.eos_token_id, tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    caches = [tmp_path / "absent" / CACHE, tmp_path / CACHE]  # the first cannot be made
    pieces = ["signal 1\n", "signal 2\n"]
    first = token_numbers(pieces, counted, caches)
    assert first.tolist() == tokenizer("signal 1\nsignal 2\n")["input_ids"]
    assert torch.equal(token_numbers(pieces, counted, caches), first)
    assert len(calls) == 1
    (file,) = (tmp_path / CACHE).iterdir()
    counted.eos_token_id = 0  # type: ignore[attr-defined]
    assert token_numbers(["signal 1\n", "signal 2"], counted, caches).tolist() == [*first.tolist()[:-1], 0]
    counted.eos_token_id = None  # type: ignore[attr-defined]
    assert len(calls) == 2
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert torch.equal(token_numbers(pieces, counted, caches), first)
    assert len(calls) == 3
    assert "damaged" in capsys.readouterr().out
    assert torch.equal(token_numbers(pieces, counted, caches), first)
    assert len(calls) == 3
    assert not list((tmp_path / CACHE).glob("*.partial"))


def test_each_validation_token_is_scored_once(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    for length in (2, 16, 17, 31, 32, 46, 47, 100):
        validation = ("ab cd " * 50)[:length]
        text = Text(["train on this text\n" * 10], [validation])
        args = parse(["--block-size", "16", "--data-dir", str(folder), "--output-dir", str(tmp_path)])
        blocks = to_blocks(text, args, tokenizer)
        assert blocks.scored == length - 1
        targets = [*blocks.validation[:, 1:].flatten().tolist(), *blocks.rest[:, 1:].flatten().tolist()]
        assert tokenizer.decode(targets) == validation[1:]
        assert blocks.words == len(validation.split())
