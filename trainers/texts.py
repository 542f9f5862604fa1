"""Text to train on, from files below the data folder or the hub, as token numbers that are made once and kept.

Files are plain text (.txt, .raw), JSON lines (.jsonl, .json) or Parquet with a column of text; of several, those with
`valid` in their name are for validation and those with `test` are left alone. Anything else is a data set's name on the
hub. Token numbers are kept beside the data, under a name that text and tokenizer decide, so that neither another block
size nor another training makes them anew; a file that does not match its own checksum is made again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.hub import not_found
from trainers.reporting import BadInput, note, one_line

if TYPE_CHECKING:
    import torch

NAMED = {"wikitext-2": ("Salesforce/wikitext", "wikitext-2-raw-v1")}  # short name → hub id and configuration
LINES_AT_ONCE = 1000  # handed to the tokenizer, which spreads them over its threads
CACHE = ".tokens"  # in the data folder, or in the output folder where that cannot be written
LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")  # half a character, which JSON can write and no tokenizer takes
COLUMN = "text"  # of a table; if there is none of that name, the first that holds text


@dataclass(frozen=True)
class Text:
    """Pieces of text, lines with their ends or whole documents; `validation` is None where a data set brings none."""

    train: list[str]
    validation: list[str] | None


# --- reading ---------------------------------------------------------------------------------------------------------


def read_text(name: str, data_dir: Path) -> Text:
    """The text of a file, of a folder's files, or of a data set of the hub; `BadInput` if there is none."""
    path = data_dir / name
    if not os.path.exists(path):  # noqa: PTH110 - the method raises where a name is too long
        return _hub_text(name, path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in READERS)
    several = len(files) > 1
    train: list[str] = []
    validation: list[str] | None = None
    for file in files:
        if several and "test" in file.stem:
            continue
        pieces = _pieces(file)
        if several and "valid" in file.stem:
            validation = (validation or []) + pieces
        else:
            train += pieces
    if not any(train):
        raise BadInput(f"{path} holds no text to train on; put files named *.txt, *.jsonl or *.parquet there.")
    return Text(train, validation)


def _pieces(file: Path) -> list[str]:
    try:
        return READERS.get(file.suffix, _plain)(file)
    except UnicodeDecodeError as problem:
        raise BadInput(f"{file} cannot be read as UTF-8 text ({problem}); convert it or take it away.") from problem
    except OSError as problem:
        raise BadInput(f"{file} cannot be read ({one_line(str(problem))[:160]}); mend it or take it away.") from problem


def _plain(file: Path) -> list[str]:
    # Not splitlines: it also splits inside a line, at form feeds and Unicode's separators.
    return list(io.StringIO(file.read_text(encoding="utf-8")))


def _json(file: Path) -> list[str]:
    """The rows of JSON lines, or of one JSON list."""
    text = file.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        rows: Iterator[tuple[int, Any]] = iter(enumerate(_parsed(text, str(file)), 1))
    else:
        # Not splitlines: it also splits at characters that JSON allows inside a string.
        lines = enumerate(text.split("\n"), 1)
        rows = ((number, _parsed(line, f"{file}, line {number},")) for number, line in lines if line.strip())
    return list(_column(rows, file))


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise BadInput(f"{where} is not JSON ({problem}); mend it or take it away.") from problem


def _column(rows: Iterator[tuple[int, Any]], file: Path) -> Iterator[str]:
    name = COLUMN
    for count, (number, row) in enumerate(rows):
        fields = row if isinstance(row, dict) else {COLUMN: row}
        if count == 0 and name not in fields:
            name = next((key for key, value in fields.items() if isinstance(value, str)), COLUMN)
        if not isinstance(fields.get(name), str):
            raise BadInput(f"{file}, row {number}, has no text in a field “{name}”; mend it or take it away.")
        yield LONE_SURROGATE.sub("\ufffd", fields[name])


def _parquet(file: Path) -> list[str]:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
        schema = table.schema_arrow
        texts = [f.name for f in schema if pyarrow.types.is_string(f.type) or pyarrow.types.is_large_string(f.type)]
        name = COLUMN if COLUMN in texts else next(iter(texts), None)
        if name is None:
            raise BadInput(f"{file} has no column of text; its columns are {', '.join(schema.names)[:160]}.")
        return [row for row in table.read(columns=[name]).column(0).to_pylist() if row is not None]
    except (pyarrow.ArrowException, OSError) as problem:
        raise BadInput(
            f"{file} cannot be read as Parquet ({one_line(str(problem))[:160]}); write it anew or take it away."
        ) from problem


READERS: dict[str, Callable[[Path], list[str]]] = {
    ".txt": _plain,
    ".raw": _plain,
    ".jsonl": _json,
    ".json": _json,
    ".parquet": _parquet,
}


def _hub_text(name: str, path: Path) -> Text:
    from datasets import load_dataset

    try:
        parts = load_dataset(*NAMED.get(name, (name,)))
    except Exception as problem:  # the library and its storage raise whatever they like
        raise not_found("data set", name, path, problem) from problem
    train = parts.get("train")
    validation = parts.get("validation", parts.get("test"))
    if train is None:
        raise BadInput(f"The data set {name} has no part named train; choose another, or put text at {path}.")
    strings = [
        c for c in train.column_names if getattr(train.features.get(c), "dtype", "") in ("string", "large_string")
    ]
    column = COLUMN if COLUMN in strings else next(iter(strings), None)
    if column is None:
        raise BadInput(f"The data set {name} has no column of text; choose another, or put text at {path}.")
    rows = [[row for row in part[column] if row is not None] for part in (train, validation) if part is not None]
    return Text(rows[0], rows[1] if validation is not None else None)


# --- tokens ----------------------------------------------------------------------------------------------------------


def token_numbers(pieces: Sequence[str], tokenizer: Any, caches: Sequence[Path]) -> torch.Tensor:
    """The pieces' tokens one after the other, int32 (n,), from the first of the cache folders that has them.

    A piece that does not end its line is a document of its own, and the end-of-text token follows it.
    """
    import numpy
    import torch

    name = f"{_fingerprint(pieces, tokenizer)}.i32"
    kept = next((found for folder in caches if (found := _kept(folder / name)) is not None), None)
    if kept is None:
        kept = _tokenised(pieces, tokenizer)
        _keep(kept, name, caches)
    return torch.from_numpy(numpy.frombuffer(kept, dtype="<i4").astype("i4"))


def _tokenised(pieces: Sequence[str], tokenizer: Any) -> bytes:
    import numpy

    end = tokenizer.eos_token_id
    made = bytearray()
    for first in range(0, len(pieces), LINES_AT_ONCE):
        some = list(pieces[first : first + LINES_AT_ONCE])
        numbers: list[int] = []
        for piece, row in zip(some, tokenizer(some, add_special_tokens=False)["input_ids"], strict=True):
            numbers += row
            if piece and not piece.endswith("\n") and end is not None:
                numbers.append(end)
        made += numpy.asarray(numbers, dtype="<i4").tobytes()
    return bytes(made)


def _fingerprint(pieces: Sequence[str], tokenizer: Any) -> str:
    """Of all that decides the numbers: the pieces and where they end, the tokenizer with its special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps([type(tokenizer).__name__, tokenizer.get_vocab()])
    digest = hashlib.sha256(f"{rules}\0{tokenizer.eos_token_id}\0".encode())
    for piece in pieces:
        part = piece.encode("utf-8", "surrogatepass")
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _kept(file: Path) -> bytes | None:
    """What is kept there, if it is whole: its SHA-256, then the numbers."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    numbers = content[32:]
    if hashlib.sha256(numbers).digest() == content[:32]:
        return numbers
    note(f"The tokens kept in {file} are damaged; they are made anew.")
    return None


def _keep(numbers: bytes, name: str, caches: Sequence[Path]) -> None:
    """Write them whole or not at all, in the first folder that takes them; without one they are made each time."""
    for folder in caches:
        partial = folder / f"{name}.{os.getpid()}.partial"
        try:
            folder.mkdir(exist_ok=True)
            partial.write_bytes(hashlib.sha256(numbers).digest() + numbers)
            partial.replace(folder / name)
        except OSError:
            partial.unlink(missing_ok=True) if folder.is_dir() else None
        else:
            return
