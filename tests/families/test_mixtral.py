"""The law of Mixtral."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from decoder_law import DecoderLaw
from decoders import TINY, WRONG_HEADS, WRONG_NORMS, other_rules
from family_law import unmoved, values_of
from numpy.typing import NDArray
from transformers import MixtralConfig, MixtralForCausalLM

from triparty.developer.protect import Choices, protect, survey
from triparty.developer.protect.keys import Keys


def mixtral(**options: Any) -> Any:
    given = {**TINY, "num_local_experts": 4, **options}
    return lambda: MixtralForCausalLM(MixtralConfig(**given))


class TestMixtral(DecoderLaw):
    is_audited_first = False
    models = {
        # Rounding cannot change which experts are picked, so it stays rounding.
        "all of four": mixtral(num_experts_per_tok=4),
        "two of five, a window, tied": mixtral(
            num_local_experts=5, sliding_window=5, tie_word_embeddings=True
        ),
    }
    options = {
        "norms kept": {"norms": "keep"},
        "expanded": {"scheme": "orthogonal", "expand": 56},
        "expanded, tokens": {"scheme": "orthogonal", "expand": 56, "interface": "tokens"},
        "scaled head": {"scheme": "orthogonal", "head_scales": True},
    }
    controls = {
        **WRONG_NORMS,
        **WRONG_HEADS,
        "router left": unmoved("block_sparse_moe.gate", 0),
        "router not keyed": unmoved("block_sparse_moe.gate", 1),
        "experts keep their places": other_rules(".experts.", experts=None),
        "gates keep their places": other_rules(".w1.", experts=None),
        "gate not permuted": unmoved(".w1.", 0),
        "down not permuted": unmoved(".w2.", 1),
    }

    def test_every_expert_has_a_key_of_its_own(self, tmp_path: Path) -> None:
        spaces = survey(str(self.source("all of four", tmp_path)), Choices()).plan.spaces
        keys = Keys.of_seed(1)
        orders = {
            space.draw(keys).apply(np.arange(20.0), 0).tobytes()
            for name, space in spaces.items()
            if name.startswith("gate.")
        }
        assert len(orders) == 2 * 4

    def test_experts_trade_places_whole(self, tmp_path: Path) -> None:
        """Where an expert went, as its sorted values say, is the same for its matrices."""
        source = self.source("all of four", tmp_path)
        protect(str(source), tmp_path / "out", choices=Choices.of(norms="keep"), seed=1)
        before, after = values_of(source), values_of(tmp_path / "out" / "model")
        moved = [
            [
                _places(before, after, f"model.layers.{layer}.block_sparse_moe.experts", part)
                for part in ("w1", "w2", "w3")
            ]
            for layer in range(2)
        ]
        for places in moved:
            assert places[0] == places[1] == places[2]
            assert sorted(places[0]) == [0, 1, 2, 3]
        assert moved[0][0] != moved[1][0]


def _places(before: Any, after: Any, experts: str, part: str) -> list[int]:
    """The old number of each expert."""
    names = [f"{experts}.{expert}.{part}.weight" for expert in range(4)]
    old = {_values(before[name]): expert for expert, name in enumerate(names)}
    return [old[_values(after[name])] for name in names]


def _values(array: NDArray[Any]) -> bytes:
    return np.sort(np.abs(array), axis=None).tobytes()
