"""The next token: the same distribution as `transformers`' own logits processors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triparty.common.errors import SettingsError
from triparty.common.keying import PlainLogits
from triparty.common.sampling import SamplingOptions, distribution, next_token


def logits_of(seed: int, size: int = 50) -> PlainLogits:
    values = np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)
    return PlainLogits(values)


def reference(logits: PlainLogits, options: SamplingOptions) -> np.ndarray:
    import torch
    from transformers import (
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    processors = LogitsProcessorList([TemperatureLogitsWarper(options.temperature)])
    if options.top_k:
        processors.append(TopKLogitsWarper(options.top_k))
    if options.top_p < 1:
        processors.append(TopPLogitsWarper(options.top_p))
    scores = processors(
        torch.zeros(1, 1, dtype=torch.long), torch.from_numpy(logits.copy())[None]
    )
    return torch.softmax(scores.double(), -1)[0].numpy()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    temperature=st.floats(0.2, 3.0),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.05, 1.0),
)
def test_distribution_equals_that_of_transformers(
    seed: int, temperature: float, top_k: int, top_p: float
) -> None:
    options = SamplingOptions(temperature=temperature, top_k=top_k, top_p=top_p)
    logits = logits_of(seed)
    ours, theirs = distribution(logits, options), reference(logits, options)
    # The set cut by top-p may differ by one token whose cumulated share is within rounding.
    edge = np.abs(ours - theirs) > 1e-6
    assert not edge.any() or on_the_edge(logits, options)
    assert ours.sum() == pytest.approx(1)


def on_the_edge(logits: PlainLogits, options: SamplingOptions) -> bool:
    plain = SamplingOptions(temperature=options.temperature, top_k=options.top_k)
    shares = np.cumsum(np.sort(distribution(logits, plain)))
    return bool(np.abs(shares - (1 - options.top_p)).min() < 1e-5)


def test_greedy_takes_the_likeliest_and_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    logits = logits_of(1)
    assert next_token(logits, SamplingOptions(), rng) == int(np.argmax(logits))
    assert rng.bit_generator.state == before


def test_a_seed_repeats_the_draws_and_another_does_not() -> None:
    def draws(seed: int) -> list[int]:
        options = SamplingOptions(temperature=1.0, seed=seed)
        rng = options.generator()
        return [next_token(logits_of(2), options, rng) for _ in range(30)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_top_k_one_is_greedy() -> None:
    options = SamplingOptions(temperature=2.0, top_k=1)
    logits = logits_of(3)
    token = next_token(logits, options, options.generator())
    assert token == int(np.argmax(logits))


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0}],
)
def test_values_without_a_meaning_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="must be"):
        SamplingOptions(**wrong)  # type: ignore[arg-type]
