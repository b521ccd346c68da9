"""Transforms of spaces: what is read is what was written, whole or in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from triparty.common.errors import CheckpointError
from triparty.developer.protect import rekeying
from triparty.developer.protect.heads import (
    Attention,
    Rotary,
    attention_spaces,
    complex_products,
    pairs,
    quarter_turns,
)
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.rekeying import Matter, rekeyed, to_bits
from triparty.developer.protect.spaces import (
    Norm,
    Scheme,
    Space,
    gated_neurons,
    head_scaled,
    mixed,
    permuted,
    residual,
    rotated,
    signed,
)
from triparty.developer.protect.transforms import (
    Dense,
    DirectSum,
    Monomial,
    Transform,
    joined,
    side_by_side,
)

KEYS = Keys.of_seed(1)
ORTHOGONAL = Scheme.ORTHOGONAL


def matrix(transform: Transform) -> np.ndarray:
    """M with x' = x M."""
    return np.asarray(transform.apply(np.eye(transform.size), 1))


def spaces() -> dict[str, Space]:
    gate, up = gated_neurons("neurons", 7, scheme=ORTHOGONAL)
    wide = residual("wide", 6, scheme=ORTHOGONAL, norm=Norm.RMS, new_size=9)
    heads = Attention(4, 2, 6, Rotary.HALVES, ORTHOGONAL)
    return {
        "permuted": permuted("a", 8),
        "signed": signed("b", 8),
        "rotated": rotated("c", 8, scheme=ORTHOGONAL),
        "mixed": mixed("d", 8, scheme=ORTHOGONAL),
        "gate": gate,
        "up": up,
        "scaled head": head_scaled(permuted("e", 9)),
        "layer norm": residual("f", 8, scheme=ORTHOGONAL, norm=Norm.LAYER),
        "layer norm of one": residual("f", 1, scheme=ORTHOGONAL, norm=Norm.LAYER),
        "expanded": wide,
        **{k: v for k, v in attention_spaces("0", heads).items() if "." in k},
    }


@pytest.mark.parametrize("name", spaces())
def test_what_is_read_is_what_was_written(name: str) -> None:
    space = spaces()[name]
    transform = space.draw(KEYS)
    assert transform.size == space.size
    assert matrix(transform).shape == (transform.size, transform.new_size)
    written, read = matrix(transform), matrix(transform.dual())
    assert np.allclose(written @ read.T, np.eye(space.size), atol=1e-12)
    values = np.random.default_rng(0).normal(size=(3, space.size))
    assert np.allclose(transform.apply(values, 1), values @ written)
    assert np.allclose(transform.apply(values.T, 0), (values @ written).T)


@pytest.mark.parametrize("name", spaces())
@pytest.mark.parametrize("limit", [1, 4, 100])
def test_runs_make_the_whole(name: str, limit: int) -> None:
    transform = spaces()[name].draw(KEYS)
    values = np.random.default_rng(0).normal(size=(transform.size, 2))
    parts, at = [], 0
    for run in transform.runs(limit):
        assert run.start == at
        parts.append(run.transform.apply(values[run.old], 0))
        at += len(parts[-1])
    assert np.allclose(np.concatenate(parts), transform.apply(values, 0))


@pytest.mark.parametrize("size", [2, 3, 8])
def test_layer_norm_keeps_the_mean(size: int) -> None:
    keyed = residual("r", size, scheme=ORTHOGONAL, norm=Norm.LAYER).draw(KEYS)
    ones = matrix(keyed).sum(axis=0)
    assert np.allclose(np.abs(ones), 1)
    assert np.allclose(ones, ones[0])
    if size > 2:  # two coordinates admit signs alone, and one draw in four changes nothing
        assert np.abs(matrix(keyed) - np.eye(size)).max() > 0.1


def test_rotations_are_uniform() -> None:
    """Of the group O(2): the angle of the first axis and the determinant."""
    made = [
        matrix(rotated(f"rotation {n}", 2, scheme=ORTHOGONAL).draw(KEYS)) for n in range(2000)
    ]
    angles = np.array([np.arctan2(r[0, 1], r[0, 0]) for r in made])
    counts = np.histogram(angles, bins=8, range=(-np.pi, np.pi))[0]
    assert ((counts - 250) ** 2 / 250).sum() < 35  # 7 degrees of freedom
    assert 900 < sum(np.linalg.det(r) > 0 for r in made) < 1100


@pytest.mark.parametrize("rotary", [Rotary.HALVES, Rotary.NEIGHBOURS])
def test_turns_multiply_pairs_by_complex_numbers(rotary: Rotary) -> None:
    real, imaginary = pairs(8, rotary)
    x = np.arange(1.0, 9.0)
    turns = np.array([0, 1, 2, 3])
    for z, transform in (
        (1j**turns, quarter_turns(turns, rotary)),
        (np.array([1, 2j, 1 + 1j, -0.5]), None),
    ):
        turned = (transform or complex_products(z, rotary)).apply(x[None], 1)[0]
        expected = (x[real] + 1j * x[imaginary]) * z
        assert np.allclose(turned[real] + 1j * turned[imaginary], expected)


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize("rotary", list(Rotary))
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (6, 1)])
def test_spaces_of_a_layer_agree(
    heads: int, groups: int, rotary: Rotary, normalised: bool, scheme: Scheme
) -> None:
    """Queries meet their group's keys, values their readers, as before, in another order."""
    if normalised and rotary is Rotary.NONE:
        pytest.skip("no family normalises queries without rotary positions")
    width = 4
    shape = Attention(heads, groups, width, rotary, scheme, normalised=normalised)
    made = attention_spaces("0", shape)
    q, k, v = (made[f"{name}.0"].draw(KEYS) for name in ("query", "key", "value"))
    m = made["mixed.0"].draw(KEYS)
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(1, width * n)) for n in (heads, groups, groups))
    share = heads // groups

    def scores(query: np.ndarray, key: np.ndarray) -> Any:
        of_heads = np.repeat(key.reshape(groups, width), share, axis=0)
        return (query.reshape(heads, width) * of_heads).sum(axis=1)

    before, after = scores(query, key), scores(q.apply(query, 1), k.apply(key, 1))
    order = made["heads.0"].draw(KEYS)
    assert isinstance(order, Monomial)
    assert np.allclose(before[order.index], after)
    assert sorted(order.index) == list(range(heads))
    # What a head copied from its group's values is read as it was.
    copied = np.repeat(value.reshape(groups, width), share, axis=0).reshape(1, -1)
    keyed = np.repeat(v.apply(value, 1).reshape(groups, width), share, axis=0).reshape(1, -1)
    assert np.allclose(m.apply(copied, 1), keyed)
    weights = rng.normal(size=(heads * width, 3))
    assert np.allclose(copied @ weights, keyed @ m.dual().apply(weights, 0))


def test_spaces_side_by_side() -> None:
    a, b = Monomial(np.array([1, 0])), quarter_turns(np.array([1]), Rotary.HALVES)
    both = joined([a, b])
    assert isinstance(both, Monomial)
    assert both.index.tolist() == [1, 0, 3, 2]
    assert both.factors().tolist() == [1, 1, -1, 1]
    assert joined([a]) is a
    turned = Dense.rotation(np.array([[0.0, 1.0], [-1.0, 0.0]]))
    swapped = side_by_side([(2, turned), (0, a)])
    assert isinstance(swapped, DirectSum)
    assert swapped.apply(np.array([[1.0, 2, 3, 4]]), 1).tolist() == [[-4, 3, 2, 1]]


def as_bits(values: np.ndarray, dtype: str) -> np.ndarray:
    return to_bits(values.astype(np.float32 if dtype in ("F16", "BF16") else np.float64), dtype)


TRANSFORMS = {
    "signed": signed("rows", 9).draw(KEYS),
    "dense": rotated("dense", 9, scheme=ORTHOGONAL).draw(KEYS),
    "blocks": side_by_side(
        [(3 * n, rotated(f"b{n}", 3, scheme=ORTHOGONAL).draw(KEYS)) for n in (2, 0, 1)]
    ),
    "expanded": residual("w", 9, scheme=ORTHOGONAL, norm=Norm.RMS, new_size=13).draw(KEYS),
}


@pytest.mark.parametrize("rows", TRANSFORMS)
@pytest.mark.parametrize("columns", TRANSFORMS)
@pytest.mark.parametrize(
    ("dtype", "unit"), [("F64", 1e-15), ("F32", 2e-7), ("F16", 1e-3), ("BF16", 8e-3)]
)
def test_a_tensor_in_pieces_is_the_tensor_at_once(
    rows: str, columns: str, dtype: str, unit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rekeying, "CHUNK_BYTES", 100)
    monkeypatch.setattr(rekeying, "CACHED_BYTES", 100)
    rng = np.random.default_rng(0)
    bits = as_bits(rng.normal(size=(9, 9)), dtype)
    scale = rng.normal(size=9) if columns == "dense" else None
    matter = Matter("w", dtype, bits, (None, scale), factor=2.0 if rows == "dense" else 1.0)
    axes = [TRANSFORMS[rows], TRANSFORMS[columns]]
    pieces = list(rekeyed(matter, axes))
    made = rekeying.to_floats(np.concatenate(pieces), dtype)
    values = rekeying.to_floats(bits, dtype).astype(np.float64)
    values = values * (1 if scale is None else scale) * matter.factor
    expected = matrix(axes[0]).T @ values @ matrix(axes[1])
    assert np.abs(made - expected).max() <= unit * np.abs(expected).max() * 8
    if rows == columns == "signed":
        assert (made == expected).all()
        assert len(pieces) > 1


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("axis", ["signed", "dense"])
def test_numbers_that_are_none_are_named(poison: float, dtype: str, axis: str) -> None:
    values = np.ones((9, 9))
    values[4, 5] = poison
    matter = Matter.stored("model.w", dtype, as_bits(values, dtype))
    with pytest.raises(CheckpointError, match=r"model\.w"):
        list(rekeyed(matter, [TRANSFORMS[axis]] * 2))


def test_a_product_that_does_not_fit_is_named() -> None:
    matter = Matter.stored("w", "F16", as_bits(np.full((9, 9), 6e4), "F16"))
    with pytest.raises(CheckpointError, match="float32"):
        list(rekeyed(matter, [TRANSFORMS["dense"]] * 2))


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_scaled_coordinates_that_trade_places_are_rounded_once(dtype: str) -> None:
    rng = np.random.default_rng(0)
    bits, scale = as_bits(rng.normal(size=(300, 9)), dtype), rng.normal(size=9)
    rows = signed("many rows", 300).draw(KEYS)
    made = np.concatenate(
        list(rekeyed(Matter("w", dtype, bits, (None, scale)), [rows, TRANSFORMS["signed"]]))
    )
    values = rekeying.to_floats(bits, dtype)
    scaled_once = to_bits(values * scale.astype(values.dtype), dtype)
    plain = Matter.stored("w", dtype, scaled_once)
    assert (made == np.concatenate(list(rekeyed(plain, [rows, TRANSFORMS["signed"]])))).all()
