"""Trained models: the protected one says what stock `generate` says; without keys, nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from triparty.common.keying import Bundle
from triparty.developer.answers import task_of
from triparty.developer.answers.causal import Texts
from triparty.developer.protect import Choices, protect
from triparty.developer.stock import load_model, load_tokenizer
from triparty.developer.verify import (
    Comparison,
    original_greedy,
    protected_greedy,
)

PROMPTS = {"stories260K": "Once upon a time", "gpt2-capp": "<SOS> geometry_prismatic"}
TOKENS = 200


CASES = [
    (model, scheme, interface)
    for model in sorted(PROMPTS)
    for scheme in ("permutation", "orthogonal")
    for interface in ("embeddings", "tokens")
]


@pytest.fixture(scope="module", params=CASES, ids=", ".join)
def trained(
    request: pytest.FixtureRequest, test_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    model, scheme, interface = request.param
    source = test_data / "models" / model
    out = tmp_path_factory.mktemp("protected") / "out"
    protect(str(source), out, choices=Choices.of(scheme=scheme, interface=interface))
    return source, out


def test_200_greedy_tokens_equal_stock_generate(trained: tuple[Path, Path]) -> None:
    source, out = trained
    ids = np.array(load_tokenizer(source)(PROMPTS[source.name])["input_ids"], np.int64)
    expected = original_greedy(load_model(source), ids, TOKENS, ())
    bundle = Bundle.open(out / "device")
    assert protected_greedy(load_model(out / "model"), bundle, ids, TOKENS) == expected
    assert len(expected) == TOKENS


@pytest.mark.parametrize("samples", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_top1_agreement_is_complete(samples: int, trained: tuple[Path, Path]) -> None:
    source, out = trained
    agreement = Comparison(str(source), out).agreement(samples, rng=np.random.default_rng(1))
    assert agreement.top1_agreement == 1.0
    assert agreement.max_relative_error <= 1e-5
    assert agreement.greedy_identical


def test_without_keys_agreement_is_chance(trained: tuple[Path, Path]) -> None:
    """The hosted model with plain rows in, and its answer read as it comes."""
    import torch

    source, out = trained
    original, hosted = load_model(source), load_model(out / "model")
    vocabulary = int(original.config.vocab_size)
    ids = np.random.default_rng(2).integers(0, vocabulary, (16, 32))
    with torch.inference_mode():
        plain_rows = original.get_input_embeddings()(torch.from_numpy(ids))
        with_rows = hosted(inputs_embeds=plain_rows).logits.argmax(-1).numpy().reshape(-1)
        with_ids = hosted(input_ids=torch.from_numpy(ids)).logits.argmax(-1).numpy().reshape(-1)
    right = task_of("causal-lm").original(original, Texts.unpadded(ids)).argmax(-1)
    # Chance is 1/V for uniform answers; one key in V carries a model's favourite token to
    # itself, and then its share of the answers agrees.
    assert (with_rows == right).mean() < 0.5
    assert (with_ids == right).mean() < 0.5


def test_a_wrong_bundle_reads_nothing(trained: tuple[Path, Path], tmp_path: Path) -> None:
    source, out = trained
    other = tmp_path / "other"
    interface = Bundle.open(out / "device").info.interface
    protect(str(source), other, choices=Choices.of(interface=interface))
    (other / "model").rename(tmp_path / "unused")
    (other / "model").symlink_to(out / "model")
    agreement = Comparison(str(source), other).agreement(500, rng=np.random.default_rng(1))
    assert agreement.top1_agreement < 0.5
    assert not agreement.greedy_identical


# Weights that are mixed are rounded to bf16 once more, beside activations that always are.
MOST_BF16 = {"permutation": 1.15, "orthogonal": 1.75}


@pytest.mark.parametrize("model", sorted(PROMPTS))
@pytest.mark.parametrize("scheme", sorted(MOST_BF16))
def test_in_bf16_the_error_is_that_of_bf16(
    model: str, scheme: str, test_data: Path, tmp_path: Path
) -> None:
    """Both are compared with the same bf16 weights computed with in float32."""
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(test_data / "models" / model, source)
    load_model(source).bfloat16().save_pretrained(source)
    info = protect(str(source), out, choices=Choices.of(scheme=scheme)).info
    assert info.dtype == "bfloat16"
    task = task_of("causal-lm")
    sample = task.sample(info, 1000, np.random.default_rng(4))
    exact = task.original(load_model(source).float(), sample)
    original = task.original(load_model(source), sample)
    bundle = Bundle.open(out / "device")
    protected = task.protected(load_model(out / "model"), bundle, sample)
    errors = [np.sqrt(np.square(answers - exact).mean()) for answers in (original, protected)]
    assert 0 < errors[1] <= MOST_BF16[scheme] * errors[0]
