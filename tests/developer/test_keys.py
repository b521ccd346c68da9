"""Keys and the transforms drawn from them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from triparty.common.errors import StateError
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.spaces import Attention, attention_spaces, quarter_turns
from triparty.developer.protect.transforms import SignedPermutation, moved

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


def test_quarter_turns_multiply_by_powers_of_i() -> None:
    turns = np.array([0, 1, 2, 3])
    transform = quarter_turns(turns)
    x = np.arange(1.0, 9.0)
    turned = x[transform.index] * np.where(transform.flips(), -1, 1)
    z = (x[:4] + 1j * x[4:]) * 1j**turns
    assert np.allclose(turned, np.concatenate([z.real, z.imag]))


def matrix(transform: SignedPermutation) -> np.ndarray:
    """R with x' = x R."""
    r = np.zeros((transform.size, transform.size))
    r[transform.index, np.arange(transform.size)] = np.where(transform.flips(), -1, 1)
    return r


@pytest.mark.parametrize("rotary", [True, False])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (6, 1)])
def test_spaces_of_a_layer_agree(heads: int, groups: int, rotary: bool) -> None:
    """Queries meet their group's keys, values their readers, as before, in another order."""
    width = 4
    shape = Attention(heads, groups, width, rotary)
    spaces = attention_spaces(0, shape)
    q, k, v, m = (
        matrix(spaces[f"{name}.0"].draw(KEYS)) for name in ("query", "key", "value", "mixed")
    )
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=width * n) for n in (heads, groups, groups)]
    share = heads // groups

    def scores(query: np.ndarray, key: np.ndarray) -> Any:
        of_heads = np.repeat(key.reshape(groups, width), share, axis=0)
        return (query.reshape(heads, width) * of_heads).sum(axis=1)

    before, after = scores(rows[0], rows[1]), scores(rows[0] @ q, rows[1] @ k)
    assert np.allclose(sorted(before), sorted(after))
    order = [int(np.abs(before - score).argmin()) for score in after]
    assert sorted(order) == list(range(heads))
    # What head `order[n]` copied from its values now lies at head n, and `mixed` knows it.
    copied = np.repeat(rows[2].reshape(groups, width), share, axis=0)
    keyed = np.repeat((rows[2] @ v).reshape(groups, width), share, axis=0)
    assert np.allclose(copied.reshape(-1) @ m, keyed.reshape(-1))
    assert (m.reshape(heads, width, -1)[order[0], :, :width] != 0).any()


def test_moving_in_pieces_is_moving_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from triparty.developer.protect import transforms

    monkeypatch.setattr(transforms, "CHUNK_BYTES", 64)
    values = np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32)
    rows = SignedPermutation(KEYS.permutation("rows", 9), KEYS.permutation("x", 9) % 2 == 0)
    columns = quarter_turns(KEYS.quarters("columns", 4))
    pieces = list(moved(values.view(np.uint32), [rows, columns]))
    assert len(pieces) > 2
    result = np.concatenate(pieces).view(np.float32)
    assert (result == matrix(rows).T.astype(np.float32) @ values @ matrix(columns)).all()


def test_joined_spaces_lie_one_after_another() -> None:
    a, b = SignedPermutation(np.array([1, 0])), quarter_turns(np.array([1]))
    joined = SignedPermutation.joined([a, b])
    assert joined.index.tolist() == [1, 0, 3, 2]
    assert joined.flips().tolist() == [False, False, True, False]
    assert SignedPermutation.joined([a]) is a
