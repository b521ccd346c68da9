"""What the public has already: the base that a model was trained from, and its table.

Who can download the base is an attacker of level K3, who has the table one of level K2: then
those levels are everybody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from triparty.developer.audit.claims import Rows
from triparty.developer.audit.recognise import (
    RECOGNISED,
    cached_candidates,
    name_of,
    recognised,
    shape_hint,
)
from triparty.developer.audit.views import ModelView
from triparty.developer.protect.checkpoints import Checkpoint, fetch

PUBLIC_SHARE = 0.5
"""Share of known rows from which on a table counts as public."""

_DRIFT = 0.01  # of a row's norm; what rounding adds, and little training
_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")


@dataclass(frozen=True)
class Exposure:
    """What of a model is public, as far as the audit can tell.

    Attributes:
        public_base: the base that the hosted weights were recognised to come from.
        public_table: the candidate that has the same embedding table.
        table_share: share of the table's rows that it has.
        declared_base: the base that the original names by itself, compared or not.
        base_likeness: how surely the weights come from the likeliest candidate, 0 to 1.
        shape_of: the well-known public model that has the original's shape, compared or not.
    """

    public_base: str | None = None
    public_table: str | None = None
    table_share: float = 0.0
    declared_base: str | None = None
    base_likeness: float = 0.0
    shape_of: str | None = None


def table_share(table: Rows, other: Rows) -> float:
    """Share of a table's rows that another one has, for the same tokens, all but equal.

    Args:
        table: (V, D).
        other: (W, D), the tokens that both have in the same order; of another width: 0.
    """
    if table.shape[1] != other.shape[1] or not len(table):
        return 0.0
    both = min(len(table), len(other))
    gaps = np.linalg.norm(table[:both] - other[:both], axis=1)
    return float((gaps <= _DRIFT * np.linalg.norm(table[:both], axis=1)).sum() / len(table))


def nearest_table(table: Rows, candidates: Mapping[str, ModelView]) -> tuple[str | None, float]:
    """The candidate with the most rows of a table, if it has enough to call it public.

    Args:
        table: (V, D) the plain rows of the original.
        candidates: public models by name.

    Returns:
        Its name, or None, and the share of rows that it has.
    """
    shares = {
        name: table_share(table, model.tensor(model.tables["rows"].pattern).astype(np.float32))
        for name, model in candidates.items()
    }
    name = max(shares, key=lambda each: shares[each], default=None)
    if name is None or shares[name] < PUBLIC_SHARE:
        return None, 0.0
    return name, shares[name]


def declared_base(source: str, checkpoint: Checkpoint) -> str | None:
    """The base that an original names: its hub id, its model card, its configuration.

    Args:
        source: the original, as it was named.
        checkpoint: its files.
    """
    if not Path(source).expanduser().is_dir():
        return source
    for name in (
        _carded(checkpoint.folder / "README.md"),
        checkpoint.config.get("_name_or_path"),
    ):
        if isinstance(name, str) and _NAME.fullmatch(name):
            return name
    return None


def _carded(card: Path) -> Any:
    """What a model card of the hub calls `base_model`: the first one, if it names several."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        named = (metadata_load(card) or {}).get("base_model") if card.is_file() else None
    except (OSError, ValueError, YAMLError):  # a card is for people; a broken one says nothing
        return None
    return named[0] if isinstance(named, list) and named else named


def exposure_of(source: str, hosted: ModelView, bases: Sequence[Path]) -> Exposure:
    """What of a model is public.

    Beside the bases that are named, those in the local cache of the hub are compared that
    have the model's shape.

    Args:
        source: the original, as it was named.
        hosted: the protected model.
        bases: folders of public models.

    Raises:
        CheckpointError: a base cannot be read.
    """
    checkpoint = Checkpoint.open(fetch(source))
    original = ModelView.open(checkpoint.folder)
    own = checkpoint.folder.resolve()
    cached = [f for f in cached_candidates(checkpoint.config) if f.resolve() != own]
    candidates = {name_of(f): ModelView.open(f) for f in (*cached, *bases)}
    likest = next(iter(recognised(hosted, [*bases, *cached])), (None, 0.0))
    table = original.tensor(original.tables["rows"].pattern).astype(np.float32)
    public_table, share = nearest_table(table, candidates)
    return Exposure(
        public_base=likest[0] if likest[1] >= RECOGNISED else None,
        public_table=public_table,
        table_share=share,
        declared_base=declared_base(source, checkpoint),
        base_likeness=likest[1],
        shape_of=shape_hint(checkpoint.config),
    )
