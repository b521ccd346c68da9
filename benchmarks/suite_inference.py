"""Protected inference: is it the same function, and what does it cost beside the original?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import device_process, round_trips
from benchmarks.checkpoints import random_llama, real_model, trained_encoder
from benchmarks.harness import Case, Effort, case, cpu_time
from benchmarks.quantised import quantisation_cases
from triparty.cloud.serving.engine import Reply, ReplyKind, Work
from triparty.cloud.serving.local import LocalEngine
from triparty.developer.protect import Choices, Scheme, protect
from triparty.developer.verify import Agreement, Comparison

SAMPLES = 10_000


# Trained models: their family, and where they are.
TRAINED: Mapping[str, Callable[[], Path]] = {
    "LLaMA (stories260K)": lambda: real_model("stories260K"),
    "GPT-2 (gpt2-capp)": lambda: real_model("gpt2-capp"),
    "ViT (vit-mnist3-hf)": lambda: real_model("vit-mnist3-hf"),
    "BERT (MiniLM)": trained_encoder,
}


@cache
def _agreement(name: str, scheme: Scheme, samples: int) -> Agreement:
    source = TRAINED[name]()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        protect(str(source), out, choices=Choices(scheme))
        comparison = Comparison(str(source), out)
        return comparison.agreement(samples, rng=np.random.default_rng(0))


def _exactness(name: str, scheme: Scheme) -> tuple[Case, Case]:
    """Agreement and error of one trained model under fresh keys."""

    def agreement(effort: Effort) -> Agreement:
        return _agreement(name, scheme, 500 if effort.quick else SAMPLES)

    @case(
        f"top-1 agreement, {name}, {scheme}, fp32",
        unit="share",
        better="higher",
        target=1.0,
        reference="thesis table 4.5: 100 % top-1",
    )
    def top1(effort: Effort) -> Iterator[float]:
        yield agreement(effort).top1_agreement

    @case(
        f"largest relative error of an answer, {name}, {scheme}, fp32",
        unit="relative",
        better="lower",
        target=1e-5,
        reference="thesis table 4.5: summed difference 3e-4 (ViT) to 5.1e-2 (GPT-2)",
    )
    def error(effort: Effort) -> Iterator[float]:
        yield agreement(effort).max_relative_error

    return top1, error


EXACTNESS: tuple[Case, ...] = tuple(
    one for name in TRAINED for scheme in Scheme for one in _exactness(name, scheme)
)


DEVICE: tuple[Case, ...] = device_process.CASES
ROUND_TRIPS: tuple[Case, ...] = round_trips.CASES


def _decode_cpu(engine: LocalEngine, rows: np.ndarray, session: str) -> float:
    """CPU seconds of one prompt and its decoding, one row at a time."""
    spent: list[float] = []
    with cpu_time(spent):
        prompt = len(rows) // 2
        engine.run([Work(session, 0, rows[:prompt], None)])
        for at in range(prompt, len(rows)):
            engine.run([Work(session, at, rows[at : at + 1], Reply(ReplyKind.LOGITS))])
    engine.close(session)
    return spent[0]


@case(
    "speed of the protected model as a share of the original's, same engine",
    unit="ratio of CPU time",
    better="higher",
    target=0.97,
    reference="target: throughput ratio at least 0.97 in the same run",
)
def speed(effort: Effort) -> Iterator[float]:
    """CPU seconds of the original over those of the protected, taken in turn."""
    layers, width, length = (2, 256, 32) if effort.quick else (6, 512, 128)
    with tempfile.TemporaryDirectory() as name:
        source = random_llama(Path(name) / "source", layers=layers, width=width)
        protect(str(source), Path(name) / "out")
        plain = LocalEngine.load(_servable(source))
        keyed = LocalEngine.load(Path(name) / "out" / "model")
        rows = np.random.default_rng(1).standard_normal((length, width)).astype(np.float32)
        for engine in (plain, keyed):
            _decode_cpu(engine, rows, "warm-up")
        for _ in range(effort.runs):
            original = _decode_cpu(plain, rows, "plain")
            yield original / _decode_cpu(keyed, rows, "keyed")


def _servable(source: Path) -> Path:
    """The checkpoint without the tokenizer, which the cloud's loader does not take."""
    (source / "tokenizer.json").unlink()
    return source


int8_top1, int8_error = quantisation_cases("without keys")
int8_kept_top1, int8_kept_error = quantisation_cases("permutation, norms kept")
int8_permuted_top1, int8_permuted_error = quantisation_cases("permutation")
int8_orthogonal_top1, int8_orthogonal_error = quantisation_cases("orthogonal")
