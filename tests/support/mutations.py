"""Bytes and JSON changed at random, from a seed: flips, cuts, splices, lies about lengths."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

EDGES = (0, 1, 2, 7, 127, 128, 255, 256, 65535, 1 << 16, 1 << 24, (1 << 31) - 1, 1 << 31)
WIDE = (*EDGES, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
WORDS = (
    b"null",
    b"true",
    b"-1",
    b"1e9",
    b"1e999",
    b"NaN",
    b"9" * 40,
    b"9" * 5000,
    b"[" * 3000,
    b'{"a":' * 1000,
    b"\\ud800",
    b"\\u0000",
    b"\xff\xfe",
    b"../",
    b"\x00",
    b'"',
    b",",
    b"}",
    b"",
)
Change = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def _flip(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(EDGES) & 255


def _lie(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    """An integer of the edge of what fields hold, where a length may be."""
    size = rng.choice((1, 2, 4, 8))
    at = rng.randrange(len(data) + 1)
    number = rng.choice(WIDE) % (1 << 8 * size)
    data[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))


def _truncate(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _remove(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    a, b = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    del data[a:b]


def _repeat(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    a, b = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    data[b:b] = data[a:b]


def _splice(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = rng.choice(others)
    at = rng.randrange(len(data) + 1)
    data[at:] = other[rng.randrange(len(other) + 1) :]


def _word(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    a = rng.randrange(len(data) + 1)
    b = min(len(data), a + rng.choice((0, 0, 1, 2, 4)))
    data[a:b] = rng.choice(WORDS)


CHANGES: tuple[Change, ...] = (
    _flip,
    _flip,
    _overwrite,
    _lie,
    _truncate,
    _remove,
    _repeat,
    _splice,
    _word,
)


def mutated(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A changed copy; most often by one change.

    Args:
        rng: decides.
        data: what is changed.
        others: what may be spliced in.
    """
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(CHANGES)(rng, changed, others)
    return bytes(changed)


VALUES: tuple[object, ...] = (
    None,
    True,
    0,
    -1,
    1 << 63,
    1 << 64,
    10**30,
    1.5,
    "",
    "..",
    "a/../b",
    "/etc",
    "\x00",
    "é",
    "9999-12-31T23:59:59Z",
    "0000-00-00T00:00:00Z",
    "a" * 300,
    [],
    {},
    [[]],
    {"a": 1},
)


def mutated_json(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Canonical JSON with one value changed, removed, added or doubled."""
    value = json.loads(data)
    container, key = value, None
    while isinstance(container, dict | list) and container:
        keys = list(container) if isinstance(container, dict) else range(len(container))
        key = rng.choice(keys)
        child = container[key]
        if not isinstance(child, dict | list) or not child or rng.random() < 0.2:
            break
        container = child
    kind = rng.randrange(4)
    if kind == 0:
        container[key] = rng.choice(VALUES)
    elif kind == 1:
        del container[key]
    elif isinstance(container, list):
        container.append(container[key])
    elif kind == 2:
        container[rng.choice(("a", "", "../a", "model/x", "é"))] = rng.choice(VALUES)
    elif isinstance(container[key], str):
        container[key] = mutated(rng, container[key].encode(), others).decode("latin-1")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")
