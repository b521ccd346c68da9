"""The next token: the same distribution as `transformers`' own logits processors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triparty.common.errors import SettingsError
from triparty.common.keying import PlainLogits
from triparty.common.sampling import (
    SamplingOptions,
    distribution,
    less_of_the_said,
    log_probabilities,
    next_token,
)


def logits_of(seed: int, size: int = 50) -> PlainLogits:
    values = np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)
    return PlainLogits(values)


def processors(options: SamplingOptions) -> Any:
    """What `generate` of `transformers` makes of the same options, in its own order."""
    import torch
    from transformers import GenerationConfig, GenerationMixin

    config = GenerationConfig(
        do_sample=not options.is_greedy,
        temperature=options.temperature or None,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
    )
    config._eos_token_tensor = None
    mixin: Any = GenerationMixin()
    mixin.config = SimpleNamespace(
        get_text_config=lambda: SimpleNamespace(vocab_size=50), is_encoder_decoder=False
    )
    return mixin._get_logits_processor(
        config,
        input_ids_seq_length=1,
        encoder_input_ids=torch.zeros(1, 1, dtype=torch.long),
        prefix_allowed_tokens_fn=None,
        logits_processor=[],
    )


def reference_scores(
    logits: PlainLogits, options: SamplingOptions, seen: Sequence[int]
) -> np.ndarray:
    import torch

    before = torch.tensor([list(seen)], dtype=torch.long)
    scores = torch.from_numpy(logits.copy())[None]
    return np.asarray(processors(options)(before, scores)[0].numpy())


def reference(
    logits: PlainLogits, options: SamplingOptions, seen: Sequence[int] = ()
) -> np.ndarray:
    scores = reference_scores(logits, options, seen).astype(np.float64)
    shares = np.exp(scores - scores.max())
    return np.asarray(shares / shares.sum())


SEEN = st.lists(st.integers(0, 49), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    temperature=st.floats(0.2, 3.0),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.05, 1.0),
    min_p=st.just(0.0) | st.floats(0.0, 1.0),
    penalty=st.just(1.0) | st.floats(0.3, 3.0),
    seen=SEEN,
)
def test_distribution_equals_that_of_transformers(
    seed: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    penalty: float,
    seen: list[int],
) -> None:
    options = SamplingOptions(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=penalty,
    )
    logits = logits_of(seed)
    ours, theirs = distribution(logits, options, seen), reference(logits, options, seen)
    # The set cut by top-p or min-p may differ by a token whose share is within rounding.
    edge = np.abs(ours - theirs) > 1e-6
    assert not edge.any() or on_the_edge(logits, options, seen)
    assert ours.sum() == pytest.approx(1)


def on_the_edge(logits: PlainLogits, options: SamplingOptions, seen: Sequence[int]) -> bool:
    all_kept = replace(options, top_p=1.0, min_p=0.0)
    shares = np.sort(distribution(logits, all_kept, seen))
    by_sum = np.abs(np.cumsum(shares) - (1 - options.top_p)).min() < 1e-5
    by_share = np.abs(shares / shares.max() - options.min_p).min() < 1e-5
    return bool(by_sum or by_share)


@pytest.mark.parametrize(
    "option",
    [{"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.3}, {"repetition_penalty": 1.5}],
    ids=str,
)
def test_every_option_changes_the_distribution(option: dict[str, Any]) -> None:
    """The law above would hold for options that both sides forgot."""
    plain = SamplingOptions(temperature=1.0)
    changed = replace(plain, **option)
    logits, seen = logits_of(4), range(0, 50, 2)
    difference = distribution(logits, changed, seen) - distribution(logits, plain, seen)
    assert np.abs(difference).max() > 1e-3
    assert (
        np.abs(distribution(logits, changed, seen) - reference(logits, changed, seen)).max()
        < 1e-6
    )


@given(seed=st.integers(0, 2**32 - 1), penalty=st.floats(0.3, 3.0), seen=SEEN)
def test_greedy_choice_under_a_penalty_is_that_of_transformers(
    seed: int, penalty: float, seen: list[int]
) -> None:
    options = SamplingOptions(repetition_penalty=penalty)
    logits = logits_of(seed)
    scores = reference_scores(logits, options, seen)
    assert next_token(logits, options, options.generator(), seen) == int(np.argmax(scores))


def test_log_probabilities_are_those_of_torch() -> None:
    import torch

    logits = logits_of(5)
    expected = torch.log_softmax(torch.from_numpy(logits).double(), -1).numpy()
    np.testing.assert_allclose(log_probabilities(logits), expected, atol=1e-12)


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
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0},
        {"min_p": 1.1},
        {"min_p": -0.1},
        {"repetition_penalty": 0},
        {"repetition_penalty": float("inf")},
    ],
)
def test_values_without_a_meaning_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="must be"):
        SamplingOptions(**wrong)  # type: ignore[arg-type]


def test_openais_penalties_are_subtracted_from_what_was_said() -> None:
    logits = np.arange(5, dtype=np.float32)
    less = less_of_the_said(logits, [1, 3, 3], presence=0.5, frequency=0.25)
    assert less.tolist() == [0, 0.25, 2, 2, 4]
    assert logits.tolist() == [0, 1, 2, 3, 4]
    assert less_of_the_said(logits, [], presence=1, frequency=1) is logits
    more = less_of_the_said(logits, [4], presence=-1, frequency=0)
    assert more.tolist() == [0, 1, 2, 3, 5]
