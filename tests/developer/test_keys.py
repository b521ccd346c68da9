"""Keys and the transforms drawn from them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from triparty.common.errors import StateError
from triparty.developer.protect.keys import Keys

KEYS = Keys.of_seed(1)


def test_draws_depend_on_master_and_label_alone() -> None:
    assert (KEYS.permutation("a", 50) == Keys(KEYS.master).permutation("a", 50)).all()
    assert (KEYS.permutation("a", 50) != KEYS.permutation("b", 50)).any()
    assert (KEYS.permutation("a", 50) != Keys.of_seed(2).permutation("a", 50)).any()
    assert Keys.fresh() != Keys.fresh()


def test_draws_do_not_change_between_versions() -> None:
    """Derivation version 1: what `secrets/master.key` of a published model means."""
    assert KEYS.permutation("residual", 8).tolist() == [1, 2, 3, 6, 7, 5, 0, 4]
    assert KEYS.quarters("layer 0 scores 0", 8).tolist() == [0, 3, 0, 1, 3, 2, 3, 0]


def test_permutations_are_uniform() -> None:
    seen = Counter(tuple(KEYS.permutation(f"label {i}", 4).tolist()) for i in range(4800))
    assert len(seen) == 24
    # 23 degrees of freedom: above 60 once in 30,000 keys, and this key is fixed.
    assert sum((n - 200) ** 2 / 200 for n in seen.values()) < 60


def test_quarters_are_uniform() -> None:
    counts = np.bincount(KEYS.quarters("label", 40000), minlength=4)
    assert ((counts - 10000) ** 2 / 10000).sum() < 25


def test_masters_of_another_length_are_refused() -> None:
    with pytest.raises(StateError, match="32 bytes"):
        Keys(b"short")
    assert KEYS.master.hex() not in repr(KEYS)


def test_real_draws_have_their_distributions() -> None:
    uniform = KEYS.uniform("uniform", 100_000)
    assert 0 <= uniform.min() <= uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 5e-3
    assert set(KEYS.signs("signs", 1000).tolist()) == {1.0, -1.0}
    normal = KEYS.normal("normal", (300, 400))
    assert normal.shape == (300, 400)
    assert np.abs([normal.mean(), normal.var() - 1, (normal**3).mean()]).max() < 2e-2
    assert abs((normal**4).mean() - 3) < 0.1
