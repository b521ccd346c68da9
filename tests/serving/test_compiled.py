"""What the compiler makes is served: the engine answers as the original does plain ids."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_law import FamilyLaw
from numpy.typing import NDArray

from triparty.cloud.serving.engine import Reply, ReplyKind, Work
from triparty.cloud.serving.families import FAMILIES
from triparty.cloud.serving.local import LocalEngine
from triparty.common.keying import Bundle
from triparty.developer.answers import task_of
from triparty.developer.answers.causal import Texts
from triparty.developer.protect import Choices, protect
from triparty.developer.stock import load_model

EXACT = 1e-4
"""max|a - b| / max|a| in float32; what is not undone is off by far more than `LEAST_BREAK`."""
LEAST_BREAK = 0.1
PROMPT, STEPS = 8, 4
"""Rows of the first step, and how many single ones follow: over the tiny windows' edges."""

LAWS = {
    "gpt2": "TestGpt2",
    "llama": "TestLlama",
    "mistral": "TestMistral",
    "qwen2": "TestQwen2",
    "qwen3": "TestQwen3",
    "gemma": "TestGemma",
    "gemma2": "TestGemma2",
    "gemma3_text": "TestGemma3",
    "mixtral": "TestMixtral",
    "deepseek_v3": "TestDeepseekV3",
}


def law_of(family: str) -> FamilyLaw:
    module = importlib.import_module(f"tests.families.test_{family.removesuffix('_text')}")
    law: FamilyLaw = getattr(module, LAWS[family])()
    return law


def cases(*, every: bool) -> Iterator[Any]:
    """Family, model and choice: the first model under the plain choices, or all others."""
    for family in LAWS:
        law = law_of(family)
        plain = len(law.schemes) * len(law.interfaces)
        for number, model in enumerate(law.models):
            for place, choice in enumerate(law.choices()):
                if every != (number == 0 and place < plain):
                    yield pytest.param(family, model, choice, id=f"{family}-{model}-{choice}")


@pytest.fixture(scope="module")
def source_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes a model's float32 checkpoint once."""

    @cache
    def make(family: str, model: str) -> Path:
        return law_of(family).source(model, tmp_path_factory.mktemp("made"), dtype="float32")

    return make


def served(out: Path, bundle: Bundle, ids: NDArray[np.int64]) -> NDArray[Any]:
    """Logits (STEPS + 1, V) after the prompt and each id behind it, the head's key undone."""
    engine, answers, position = LocalEngine.load(out / "model"), [], 0
    for part in (ids[:PROMPT], *ids[PROMPT:, None]):
        if engine.info.text is None:
            inputs = bundle.rows(part, start=position).as_float32()
        else:
            inputs = np.asarray(bundle.keyed_ids(part))
        (reply,) = engine.run([Work("s", position, inputs, Reply(ReplyKind.LOGITS))])
        answers.append(bundle.plain_logits(reply[0])[0])
        position += len(part)
    return np.stack(answers)


def check(source: Path, choice: dict[str, Any], folder: Path) -> None:
    found = protect(str(source), folder / "out", choices=Choices.of(**choice), seed=1)
    ids = np.random.default_rng(0).integers(0, found.info.vocabulary, PROMPT + STEPS)
    plain = task_of("causal-lm").original(load_model(source), Texts.unpadded(ids[None]))
    expected = plain.reshape(-1, plain.shape[-1])[PROMPT - 1 :]
    got = served(folder / "out", Bundle.open(folder / "out" / "device"), ids)
    assert off(expected, got) <= EXACT
    assert off(expected, np.roll(got, 1, axis=0)) > LEAST_BREAK  # one answer is not another


def off(expected: NDArray[Any], got: NDArray[Any]) -> float:
    assert expected.shape == got.shape
    return float(np.abs(expected - got).max() / np.abs(expected).max())


def test_every_served_family_has_a_law() -> None:
    assert set(LAWS) == set(FAMILIES)


@pytest.mark.parametrize(("family", "model", "choice"), list(cases(every=False)))
def test_a_compiled_model_is_served(
    family: str, model: str, choice: str, source_of: Any, tmp_path: Path
) -> None:
    check(source_of(family, model), law_of(family).choices()[choice], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "model", "choice"), list(cases(every=True)))
def test_every_compiled_model_is_served(
    family: str, model: str, choice: str, source_of: Any, tmp_path: Path
) -> None:
    check(source_of(family, model), law_of(family).choices()[choice], tmp_path)


@pytest.mark.parametrize("interface", ["embeddings", "tokens"])
def test_another_key_undoes_nothing(interface: str, source_of: Any, tmp_path: Path) -> None:
    """The law above can fail: the same model with the bundle of another run."""
    source, choices = source_of("llama", "grouped queries"), Choices.of(interface=interface)
    for seed in (1, 2):
        protect(str(source), tmp_path / str(seed), choices=choices, seed=seed)
    ids = np.arange(PROMPT + STEPS)
    right, wrong = (Bundle.open(tmp_path / seed / "device") for seed in "12")
    answers = [served(tmp_path / "1", bundle, ids) for bundle in (right, wrong)]
    assert off(*answers) > LEAST_BREAK
