"""Frequency analysis over long traffic: what counting alone reads of sampled text (K0)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.checkpoints import real_model
from benchmarks.harness import Case, Effort, case
from benchmarks.sampled_texts import sampled_texts
from triparty.developer.audit import Knowledge, set_scene
from triparty.developer.audit.attacks import Frequency
from triparty.developer.audit.knowledge import given
from triparty.developer.audit.scene import keyed_table
from triparty.developer.protect import protect

_ROWS = (10_000, 100_000, 1_000_000)
_QUICK_ROWS = 20_000
_MINE, _THEIRS = 1, 2  # seeds of the traffic and of the attacker's own text


def long_traffic(rows: int, *, same: bool) -> tuple[Knowledge, NDArray[np.int64]]:
    """Sampled traffic of stories260K (N,) with its tokens, and text for the attacker to count.

    Args:
        rows: how many, at least.
        same: whether the text is of the traffic's distribution; else Python's documentation.
    """
    source = real_model("stories260K")
    ids = sampled_texts(source, rows, seed=_MINE)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        protect(str(source), out)
        scene = set_scene(str(source), out)
        table = keyed_table(given(scene.knowledge.bundle), given(scene.knowledge.hosted))
    language = scene.knowledge.language
    if same:
        language = tuple(sampled_texts(source, rows, seed=_THEIRS))
    return Knowledge(tuple(table.rows[text] for text in ids), language=language), ids.ravel()


def _read_by_frequency(rows: int, *, same: bool, by_type: bool) -> float:
    """Share of rows, or of their tokens, that frequency analysis recovers from sampled text."""
    knowledge, right = long_traffic(rows, same=same)
    tokens = np.concatenate(Frequency().mount(knowledge).token_ids)
    if by_type:
        right, first = np.unique(right, return_index=True)
        tokens = tokens[first]
    return float((tokens == right).mean())


def _frequency(effort: Effort, *, rows: int, same: bool, by_type: bool) -> Iterator[float]:
    """One attack; nothing in it is drawn, so one run is all there is to know."""
    counted = min(rows, _QUICK_ROWS) if effort.quick else rows
    yield _read_by_frequency(counted, same=same, by_type=by_type)


def _cases() -> Iterator[Case]:
    for rows in _ROWS:
        for same in (True, False):
            text = "text of the same distribution" if same else "Python's documentation"
            for by_type in (True, False):
                what = "different tokens" if by_type else "rows"
                yield case(
                    f"share of {what} that counting reads in {rows} rows with {text} (K0)",
                    unit="share",
                    better="lower",
                    reference="AloePri, arXiv 2603.01499, table 4, a large vocabulary: "
                    "top-10 / top-100 " + ("3.2 / 16.5 %" if same else "0.14 / 1.0 %"),
                )(partial(_frequency, rows=rows, same=same, by_type=by_type))


counted = tuple(_cases())
