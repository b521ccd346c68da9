"""The audit: what attacks recover. Higher is better for the attacker, so lower for users."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.checkpoints import real_model
from benchmarks.harness import Case, Effort, case
from benchmarks.sampled_texts import sampled_texts
from triparty.developer.audit import Knowledge, audit, set_scene
from triparty.developer.audit.attacks import Frequency
from triparty.developer.audit.knowledge import given
from triparty.developer.audit.scene import keyed_table
from triparty.developer.protect import protect


@case(
    "share of tokens that sorted rows recover under `permutation` (K2)",
    unit="share",
    better="lower",
    reference="100 % expected: attack of arXiv 2505.18332 on re-keyed rows, table known",
)
def sorted_rows(effort: Effort) -> Iterator[float]:
    """What the attack recovers from sample texts under fresh keys."""
    source = real_model("stories260K")
    for _ in range(1 if effort.quick else 3):
        with tempfile.TemporaryDirectory() as name:
            out = Path(name) / "out"
            protect(str(source), out)
            for found in audit(set_scene(str(source), out)).findings:
                if found.name == "sorted-rows":
                    yield found.recovered


_SHORT = 20_000  # rows of a quick run
_MINE, _THEIRS = 1, 2  # seeds of the traffic and of the attacker's own text


def _read_by_frequency(rows: int, *, same: bool, by_type: bool) -> float:
    """Share of rows, or of their tokens, that frequency analysis recovers from sampled text."""
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
    traffic = tuple(table.rows[text] for text in ids)
    found = Frequency().mount(Knowledge(traffic, language=language))
    tokens, right = np.concatenate(found.token_ids), ids.ravel()
    if by_type:
        right, first = np.unique(right, return_index=True)
        tokens = tokens[first]
    return float((tokens == right).mean())


def _frequency_case(rows: int, *, same: bool, by_type: bool) -> Case:
    what = "different tokens" if by_type else "rows"
    text = "text of the same distribution" if same else "Python's documentation"

    @case(
        f"share of {what} that frequency analysis reads in {rows} rows with {text} (K0)",
        unit="share",
        better="lower",
        reference="AloePri, arXiv 2603.01499, table 4, a large vocabulary: top-10 / top-100 "
        + ("3.2 % / 16.5 %" if same else "0.14 % / 1.0 %"),
    )
    def frequency(effort: Effort) -> Iterator[float]:
        asked = min(rows, _SHORT) if effort.quick else rows
        yield _read_by_frequency(asked, same=same, by_type=by_type)

    return frequency


FREQUENCY = tuple(
    _frequency_case(rows, same=same, by_type=by_type)
    for rows in (10_000, 100_000, 1_000_000)
    for same in (True, False)
    for by_type in (True, False)
)
