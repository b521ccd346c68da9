"""Serving: what keys, the wire and a crowd cost, and how batching pays."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks import beside_original, crowd
from benchmarks.checkpoints import random_llama, real_model, sharded_llama
from benchmarks.harness import Case, Effort, SkippedError, case, cpu_time
from triparty.cloud.serving.engine import Reply, ReplyKind, Work
from triparty.cloud.serving.local import LocalEngine
from triparty.cloud.serving.placement import Placement
from triparty.developer.protect import protect

SESSIONS = 8
PROMPT = 16


def _tokens_per_cpu_second(engine: LocalEngine, width: int, sessions: int, steps: int) -> float:
    rng = np.random.default_rng(sessions)
    names = [f"session {i}" for i in range(sessions)]
    rows = rng.standard_normal((PROMPT + steps, width)).astype(np.float32)
    engine.run([Work(name, 0, rows[:PROMPT], None) for name in names])
    spent: list[float] = []
    with cpu_time(spent):
        for at in range(PROMPT, PROMPT + steps):
            step = rows[at : at + 1]
            engine.run([Work(name, at, step, Reply(ReplyKind.LOGITS)) for name in names])
    for name in names:
        engine.close(name)
    return sessions * steps / spent[0]


@case(
    "tokens per CPU second, 8 sessions in a batch over 1 session",
    unit="ratio",
    better="higher",
    target=3.0,
    reference="target: at least 3x the tokens of one session; engine alone, without HTTP",
)
def batching(effort: Effort) -> Iterator[float]:
    """The gain of packing eight sessions into one pass, same model, taken in turn."""
    layers, width, steps = (2, 256, 8) if effort.quick else (6, 512, 48)
    with tempfile.TemporaryDirectory() as name:
        source = random_llama(Path(name) / "source", layers=layers, width=width)
        protect(str(source), Path(name) / "out")
        engine = LocalEngine.load(Path(name) / "out" / "model")
        _tokens_per_cpu_second(engine, width, SESSIONS, 2)
        for _ in range(effort.runs):
            one = _tokens_per_cpu_second(engine, width, 1, steps)
            yield _tokens_per_cpu_second(engine, width, SESSIONS, steps) / one


@case(
    "largest difference of an answer alone and among 31 others, stories260K",
    unit="relative",
    better="lower",
    target=1e-5,
    reference="law: who else is in a batch changes nothing but the order of sums",
)
def company(effort: Effort) -> Iterator[float]:
    """Prompts of all lengths, then rows; every session of the 32 is also run alone."""
    engine = LocalEngine.load(real_model("stories260K"))
    rng, sessions, steps = np.random.default_rng(3), 32, 4 if effort.quick else 16
    rows = [rng.standard_normal((1 + 5 * i + steps, 64), np.float32) for i in range(sessions)]
    logits = Reply(ReplyKind.LOGITS)

    def works(numbers: range, at: int) -> list[Work]:
        first = {i: len(rows[i]) - steps for i in numbers}
        spans = {i: (0, n) if not at else (n + at - 1, n + at) for i, n in first.items()}
        return [Work(str(i), a, rows[i][a:b], logits) for i, (a, b) in spans.items()]

    together = [engine.run(works(range(sessions), at)) for at in range(steps + 1)]
    for i in range(sessions):
        engine.close(str(i))
        worst = 0.0
        for at in range(steps + 1):
            ((alone,),) = engine.run(works(range(i, i + 1), at))
            (among,) = together[at][i]
            worst = max(worst, float(np.abs(alone - among).max() / np.abs(alone).max()))
        yield worst


BESIDE_ORIGINAL: tuple[Case, ...] = beside_original.CASES
CROWD: tuple[Case, ...] = crowd.CASES


@case(
    "tokens a second, protected over unprotected, 7B-shaped, bfloat16, 8 sessions on a GPU",
    unit="ratio",
    better="higher",
    target=0.97,
    reference="target: at least 0.97 in the same run; random weights",
)
def on_gpu(effort: Effort) -> Iterator[float]:
    """Both models on one GPU, taken in turn."""
    if not torch.cuda.is_available():
        raise SkippedError("it needs a GPU that torch sees, with 32 GB")
    layers = 4 if effort.quick else 32
    with tempfile.TemporaryDirectory() as name:
        source = sharded_llama(
            Path(name) / "source", layers=layers, width=4096, hidden=11008, vocabulary=32000
        )
        protect(str(source), Path(name) / "out")
        (source / "tokenizer.json").unlink()
        placement = Placement("cuda")
        plain = LocalEngine.load(source, placement)
        keyed = LocalEngine.load(Path(name) / "out" / "model", placement)
        for engine in (plain, keyed):
            _tokens_per_second(engine, 8)
        for _ in range(effort.runs):
            original = _tokens_per_second(plain, 64)
            yield _tokens_per_second(keyed, 64) / original


def _tokens_per_second(engine: LocalEngine, steps: int) -> float:
    """Of sessions side by side, by the clock: the work is the GPU's."""
    width = engine.info.width
    rows = np.random.default_rng(1).standard_normal((PROMPT + steps, width), np.float32)
    names = [f"session {i}" for i in range(SESSIONS)]
    engine.run([Work(name, 0, rows[:PROMPT], None) for name in names])
    begun = time.perf_counter()
    for at in range(PROMPT, PROMPT + steps):
        engine.run([Work(name, at, rows[at : at + 1], Reply(ReplyKind.ID)) for name in names])
    spent = time.perf_counter() - begun
    for name in names:
        engine.close(name)
    return SESSIONS * steps / spent
