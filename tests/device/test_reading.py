"""Vectors and scores, compared with torch and with the definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from triparty.common.encodinginfo import EncodingInfo, Pooling, Scores
from triparty.device.inference.reading import classification, sentence_vector

ROWS = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (Pooling.MEAN, torch.from_numpy(ROWS).mean(dim=0)),
        (Pooling.CLS, torch.from_numpy(ROWS)[0]),
        (Pooling.MAX, torch.from_numpy(ROWS).max(dim=0).values),
        (Pooling.MEAN_SQRT_LEN, torch.from_numpy(ROWS).sum(dim=0) / 5**0.5),
    ],
)
@pytest.mark.parametrize("normalise", [False, True])
def test_rows_are_pooled(pooling: Pooling, expected: torch.Tensor, normalise: bool) -> None:
    vector = sentence_vector(ROWS, EncodingInfo(pooling=pooling, normalise=normalise))
    if normalise:
        expected = torch.nn.functional.normalize(expected, dim=0)
    assert vector.dtype == np.float32
    assert np.abs(vector - expected.numpy()).max() <= 1e-6


def test_a_vector_is_taken_as_it_is() -> None:
    assert (sentence_vector(ROWS[0], EncodingInfo()) == ROWS[0]).all()
    zeros = sentence_vector(np.zeros(3, np.float32), EncodingInfo(normalise=True))
    assert zeros.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("scores", "function"),
    [
        (Scores.SOFTMAX, lambda logits: logits.softmax(dim=0)),
        (Scores.SIGMOID, torch.sigmoid),
        (Scores.NONE, lambda logits: logits),
    ],
)
@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_logits_become_scores(scores: Scores, function: object, size: float) -> None:
    logits = (size * ROWS[0]).astype(np.float32)
    names = tuple("abcdefgh")
    found = classification(logits, names, scores)
    expected = function(torch.from_numpy(logits)).numpy()  # type: ignore[operator]
    assert list(found.scores) == list(names)
    assert np.allclose(list(found.scores.values()), expected, atol=1e-6)
    assert found.label == names[int(logits.argmax())]
    assert found.score == found.scores[found.label]


def test_labels_without_names_are_numbered() -> None:
    found = classification(np.array([1, 3, 2], np.float32), (), Scores.SOFTMAX)
    assert found.label == "LABEL_1"
