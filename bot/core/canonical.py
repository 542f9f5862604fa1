"""Canonical JSON and its SHA-256: what binds a person's approval to exactly what the card showed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SHORT = 12  # characters of a digest that stand on a card


def canonical_json(document: Any) -> str:
    """One text for one value: keys sorted, no spaces, no NaN. Raises ValueError for what JSON cannot hold exactly."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(document: Any) -> str:
    """SHA-256 (64 hexadecimal digits) of the canonical JSON of `document`."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()
