"""What can be added to the keys, each with what it changes and who has to do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from triparty.common.decoys import DecoyKind

ORTHOGONAL: Mapping[str, Any] = {"scheme": "orthogonal"}


@dataclass(frozen=True)
class Mitigation:
    """One way to serve a model, or a combination of several.

    Attributes:
        name: what tables call it.
        choices: of the compiler, as `Choices.of` takes them; the developer's.
        noise: that devices add to rows, as a share of a row's root mean square.
        to_bfloat16: whether devices round rows to bfloat16.
        decoys: texts that devices ask beside each real one.
        decoy_kind: how they are drawn.
        tuned_under: noise under which the developer trained the model on for a while.
        private_table: whether the developer moved the embedding table away from the public
            one; an attacker of K2 has the public one then.
        rows_per_key: most rows that travel under one key, of all devices; None: no limit.
    """

    name: str
    choices: Mapping[str, Any] = field(default_factory=lambda: ORTHOGONAL)
    noise: float = 0.0
    to_bfloat16: bool = False
    decoys: int = 0
    decoy_kind: DecoyKind = DecoyKind.TEXT
    tuned_under: float = 0.0
    private_table: bool = False
    rows_per_key: int | None = None

    @property
    def streams(self) -> int:
        """How many texts the cloud reads for each real one."""
        return self.decoys + 1


MITIGATIONS: tuple[Mitigation, ...] = (
    Mitigation("permutation", {"scheme": "permutation"}),
    Mitigation("orthogonal"),
    Mitigation("bf16 rows", to_bfloat16=True),
    *(Mitigation(f"noise {noise:.0%}", noise=noise) for noise in (0.05, 0.1, 0.3, 0.5, 1.0)),
    Mitigation("permutation, noise 30%", {"scheme": "permutation"}, noise=0.3),
    Mitigation("expanded to twice the width", {**ORTHOGONAL, "expand": 0}),
    Mitigation("head scales", {**ORTHOGONAL, "head_scales": True}),
    Mitigation("head on the device", {**ORTHOGONAL, "head": "device"}),
    Mitigation("private table", private_table=True),
    Mitigation("noise 50%, tuned for it", noise=0.5, tuned_under=0.5),
    Mitigation("noise 100%, tuned for it", noise=1.0, tuned_under=1.0),
    *(
        Mitigation(f"noise 50%, {rows:,} rows a key", noise=0.5, rows_per_key=rows)
        for rows in (256, 1024, 10_240, 102_400)
    ),
    *(
        Mitigation(f"{decoys} decoys ({kind})", decoys=decoys, decoy_kind=kind)
        for kind, many in (
            (DecoyKind.UNIGRAM, (9,)),
            (DecoyKind.BIGRAM, (9,)),
            (DecoyKind.TEXT, (1, 4, 9, 19)),
        )
        for decoys in many
    ),
    Mitigation(
        "noise 30%, bf16 rows, 19 decoys (text)", noise=0.3, to_bfloat16=True, decoys=19
    ),
)
