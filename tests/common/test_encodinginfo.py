"""`encoding.json`: what is written is read, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.encodinginfo import EncodingInfo, Pooling, Scores
from triparty.common.errors import CheckpointError

INFOS = st.builds(
    EncodingInfo,
    max_tokens=st.none() | st.integers(1, 10_000),
    lowercase=st.booleans(),
    prompt=st.text(max_size=20),
    pooling=st.sampled_from(Pooling),
    normalise=st.booleans(),
    scores=st.sampled_from(Scores),
)


@given(INFOS)
def test_what_is_written_is_read(info: EncodingInfo) -> None:
    assert EncodingInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize(
    "changes",
    [
        {"max_tokens": 0},
        {"max_tokens": True},
        {"max_tokens": 1.5},
        {"lowercase": 1},
        {"prompt": None},
        {"pooling": "sum"},
        {"pooling": ["mean"]},
        {"scores": ""},
        {"more": 1},
    ],
)
def test_wrong_members_are_refused(changes: dict[str, Any]) -> None:
    document = json.loads(EncodingInfo().to_json()) | changes
    with pytest.raises(CheckpointError, match=r"encoding\.json"):
        EncodingInfo.from_json(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"[" * 100_000, b"\xff"])
def test_what_is_no_such_document_is_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"encoding\.json"):
        EncodingInfo.from_json(data)


def test_the_defaults_are_those_of_a_checkpoint_that_says_nothing() -> None:
    assert EncodingInfo() == EncodingInfo(
        None, False, "", Pooling.MEAN, normalise=False, scores=Scores.SOFTMAX
    )
