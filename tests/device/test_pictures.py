"""Where an image stands in a text, and that its rows go there however a text is cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.deviceinfo import ImageInfo
from triparty.common.errors import RequestError
from triparty.common.keying import KeyedRows
from triparty.common.wire import DType, Frame
from triparty.device.inference.pictures import Picture, with_place

TOKEN, BOS, COUNT, D = 9, 1, 3, 4
IMAGE = ImageInfo(3, 8, 4, token_id=TOKEN, tokens=COUNT)
DTYPES = (DType.F32, DType.F16, DType.BF16)


@given(
    text=st.integers(1, 9),
    first=st.integers(0, 9),
    cuts=st.sets(st.integers(1, 11)),
    dtype=st.sampled_from(DTYPES),
)
def test_rows_go_into_their_places_however_the_text_is_cut(
    text: int, first: int, cuts: set[int], dtype: DType
) -> None:
    rng = np.random.default_rng(0)
    first = min(first, text)
    whole = Frame.rounded(rng.normal(size=(text + COUNT, D)).astype(np.float32), dtype)
    seen = Frame.rounded(rng.normal(size=(COUNT, D)).astype(np.float32), dtype).as_float32()
    picture = Picture(seen, first)
    bounds = [0, *sorted(cut for cut in cuts if cut < text + COUNT), text + COUNT]
    sent = [
        picture.put_into(KeyedRows(Frame(dtype, whole.array[a:b])), start=a)
        for a, b in pairwise(bounds)
    ]
    assert all(part.dtype is dtype for part in sent)
    got = np.concatenate([part.as_float32() for part in sent])
    expected = whole.as_float32()
    expected[first : first + COUNT] = seen
    assert np.array_equal(got, expected)
    assert not np.array_equal(got, whole.as_float32())


@pytest.mark.parametrize(
    ("ids", "expected", "first"),
    [
        ([BOS, 5, TOKEN, 6], [BOS, 5, *[TOKEN] * COUNT, 6], 2),
        ([BOS, 5, *[TOKEN] * COUNT, 6], [BOS, 5, *[TOKEN] * COUNT, 6], 2),
        ([BOS, 5, 6], [BOS, *[TOKEN] * COUNT, 5, 6], 1),
        ([5, 6], [*[TOKEN] * COUNT, 5, 6], 0),
        ([], [TOKEN] * COUNT, 0),
    ],
)
def test_a_text_has_as_many_tokens_as_an_image_takes(
    ids: list[int], expected: list[int], first: int
) -> None:
    assert with_place(ids, IMAGE, TOKEN, bos_id=BOS) == (expected, first)


@pytest.mark.parametrize(
    "ids", [[TOKEN, 5, TOKEN], [TOKEN] * 2, [TOKEN] * 4, [TOKEN, 5, TOKEN, TOKEN]]
)
def test_several_images_and_parts_of_one_are_refused(ids: list[int]) -> None:
    with pytest.raises(RequestError, match="more than one image"):
        with_place(ids, IMAGE, TOKEN, bos_id=BOS)
