"""Trained weights in families of which no small trained checkpoint is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rehoused import HOUSES, rehoused

from triparty.common.keying import Bundle
from triparty.developer.answers import task_of
from triparty.developer.answers.causal import Texts
from triparty.developer.protect import Choices, protect
from triparty.developer.stock import load_model, load_tokenizer
from triparty.developer.verify import Comparison, original_greedy, protected_greedy

PROMPT, TOKENS = "Once upon a time", 64
KEYED = [
    (scheme, interface)
    for scheme in ("permutation", "orthogonal")
    for interface in ("embeddings", "tokens")
]


@pytest.fixture(scope="module", params=sorted(HOUSES))
def house(
    request: pytest.FixtureRequest,
    stories_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("rehoused") / "source"
    return rehoused(stories_model, request.param, folder)


def test_a_rehoused_model_answers_as_before(house: Path, stories_model: Path) -> None:
    task = task_of("causal-lm")
    ids = np.random.default_rng(1).integers(0, 512, (8, 64))
    before = task.original(load_model(stories_model), Texts.unpadded(ids))
    after = task.original(load_model(house), Texts.unpadded(ids))
    assert np.abs(before - after).max() <= 5e-6 * np.abs(before).max()
    assert (before.argmax(-1) == after.argmax(-1)).all()


@pytest.mark.parametrize(("scheme", "interface"), KEYED)
@pytest.mark.parametrize("samples", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_answers_are_the_originals(
    house: Path, scheme: str, interface: str, samples: int, tmp_path: Path
) -> None:
    choices = Choices.of(scheme=scheme, interface=interface)
    protect(str(house), tmp_path / "out", choices=choices)
    comparison = Comparison(str(house), tmp_path / "out")
    agreement = comparison.agreement(samples, rng=np.random.default_rng(samples))
    assert agreement.samples >= samples
    assert agreement.dtype == "float32"
    assert agreement.top1_agreement == 1.0
    assert agreement.max_relative_error <= 1e-5
    assert agreement.greedy_identical


@pytest.mark.parametrize(("scheme", "interface"), KEYED)
def test_a_story_is_the_one_that_stock_generate_tells(
    house: Path, scheme: str, interface: str, stories_model: Path, tmp_path: Path
) -> None:
    choices = Choices.of(scheme=scheme, interface=interface)
    protect(str(house), tmp_path / "out", choices=choices)
    ids = np.array(load_tokenizer(stories_model)(PROMPT)["input_ids"], np.int64)
    expected = original_greedy(load_model(stories_model), ids, TOKENS, ())
    bundle, hosted = Bundle.open(tmp_path / "out/device"), load_model(tmp_path / "out/model")
    assert protected_greedy(hosted, bundle, ids, TOKENS) == expected
