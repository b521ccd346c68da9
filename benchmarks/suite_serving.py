"""Serving: how batching pays."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.checkpoints import random_llama
from benchmarks.harness import Effort, case, cpu_time
from triparty.cloud.serving.engine import Reply, ReplyKind, Work
from triparty.cloud.serving.local import LocalEngine
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
