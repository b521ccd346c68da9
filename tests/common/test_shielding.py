"""What becomes of rows before they go: bit for bit nothing, or noise that never repeats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.errors import SettingsError
from triparty.common.keying import KeyedRows
from triparty.common.shielding import SECRET_BYTES, Shield, request_sizes
from triparty.common.wire import DType, Frame, bfloat16_to_float32, float32_to_bfloat16

RNG = np.random.default_rng(0)
SECRET = bytes(range(SECRET_BYTES))


def rows_of(count: int = 50, width: int = 64) -> KeyedRows:
    values = RNG.normal(size=(count, width)) * RNG.uniform(0.1, 10, size=(count, 1))
    return KeyedRows(Frame.of(values.astype(np.float32)))


def test_without_noise_the_very_same_frame_goes() -> None:
    rows = rows_of()
    assert Shield.fresh().rows(rows, start=3) is rows


@pytest.mark.parametrize("level", [0.05, 0.5, 2.0])
def test_noise_has_the_size_that_was_asked_for(level: float) -> None:
    rows = rows_of(400, 65)
    plain = rows.as_float32()
    noise = Shield(level, secret=SECRET).rows(rows, start=0).as_float32() - plain
    sizes = np.sqrt((plain**2).mean(axis=1, keepdims=True))
    scaled = (noise / sizes / level).ravel()
    assert abs(scaled.mean()) < 0.03
    assert abs(scaled.std() - 1) < 0.02
    assert abs((scaled**3).mean()) < 0.1
    assert abs((scaled**4).mean() - 3) < 0.2
    across = np.corrcoef((noise / sizes).T)
    assert np.abs(across - np.eye(65)).max() < 0.25, "elements have noise of their own"


def test_a_repeated_request_has_the_same_noise() -> None:
    rows = rows_of()
    shield = Shield.fresh(noise=0.3)
    once, twice = (shield.rows(rows, start=7).as_float32() for _ in range(2))
    np.testing.assert_array_equal(once, twice)


def test_the_noise_of_a_row_is_the_same_in_whatever_request_it_goes() -> None:
    rows = rows_of(6)
    shield = Shield.fresh(noise=0.3)
    whole = shield.rows(rows, start=0).as_float32()
    tail = KeyedRows(Frame.of(rows.array[4:].copy()))
    np.testing.assert_array_equal(shield.rows(tail, start=4).as_float32(), whole[4:])


def test_other_conversations_positions_and_rows_have_other_noise() -> None:
    row = rows_of(1)
    twice = KeyedRows(Frame.of(np.repeat(row.array, 2, axis=0)))
    shield = Shield.fresh(noise=0.3)
    first, second = shield.rows(twice, start=0).as_float32()
    assert abs(np.corrcoef(first - row.array[0], second - row.array[0])[0, 1]) < 0.6
    other = Shield.fresh(noise=0.3).rows(twice, start=0).as_float32()[0]
    assert not np.array_equal(first, other)
    turned = KeyedRows(Frame.of(-row.array))
    noise = shield.rows(turned, start=0).as_float32()[0] + row.array[0]
    assert not np.allclose(noise, first - row.array[0], atol=1e-6)


def test_copies_that_are_not_repeats_average_out_and_repeats_do_not() -> None:
    """Why a repeat must not be noisy anew."""
    row = rows_of(1)
    many = KeyedRows(Frame.of(np.repeat(row.array, 400, axis=0)))
    shield = Shield(1.0, secret=SECRET)
    error = np.abs(shield.rows(many, start=0).as_float32().mean(axis=0) - row.array[0]).max()
    repeats = [shield.rows(row, start=0).as_float32()[0] for _ in range(400)]
    size = np.sqrt((row.array**2).mean())
    assert error < 0.3 * size
    assert np.abs(np.mean(repeats, axis=0) - row.array[0]).max() > 1.0 * size


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.BF16])
def test_rounding_is_the_wire_s_and_the_dtype_stays_without_it(dtype: DType) -> None:
    values = rows_of().as_float32()
    bits = float32_to_bfloat16(values) if dtype is DType.BF16 else values.astype(dtype.storage)
    rows = KeyedRows(Frame(dtype, bits))
    rounded = Shield(to_bfloat16=True).rows(rows, start=0)
    assert rounded.dtype is DType.BF16
    np.testing.assert_array_equal(rounded.array, float32_to_bfloat16(rows.as_float32()))
    assert Shield(0.1, secret=SECRET).rows(rows, start=0).dtype is dtype
    both = Shield(0.1, to_bfloat16=True, secret=SECRET).rows(rows, start=0)
    noisy = Shield(0.1, secret=SECRET).rows(rows, start=0).as_float32()
    near = bfloat16_to_float32(both.array)
    np.testing.assert_allclose(near, noisy, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf"), 11.0])
def test_noise_without_a_meaning_is_refused(noise: float) -> None:
    with pytest.raises(SettingsError, match="noise"):
        Shield.fresh(noise=noise)


def test_noise_without_a_secret_is_refused_and_the_secret_is_not_shown() -> None:
    with pytest.raises(SettingsError, match="secret"):
        Shield(0.1)
    assert "secret" not in repr(Shield.fresh(noise=0.1))


@given(
    start=st.integers(0, 300),
    count=st.integers(0, 300),
    block=st.integers(1, 40),
    limit=st.integers(1, 64),
)
def test_requests_are_whole_blocks_or_single_rows(
    start: int, count: int, block: int, limit: int
) -> None:
    sizes = request_sizes(start, count, block=block, limit=limit)
    assert sum(sizes) == count
    assert all(1 <= size <= limit for size in sizes)
    for at, size in zip(np.cumsum([start, *sizes]), sizes, strict=False):
        assert size == 1 or (at % block == 0 and size % block == 0)


def test_a_question_and_the_first_words_of_its_answer_look_alike() -> None:
    shapes = [
        request_sizes(0, question, block=16, limit=64) + [1] * (48 - question)
        for question in range(32, 48)
    ]
    assert all(shape == shapes[0] for shape in shapes)
    assert request_sizes(0, 37, block=1, limit=64) == [37]
