"""A protected model beside its original on one server: what keys and the wire cost."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, DynamicCache

from benchmarks.checkpoints import random_llama, real_model
from benchmarks.clouds import device_with
from benchmarks.harness import Case, Effort, case
from triparty.common.transport import CloudClient
from triparty.common.wire import Frame
from triparty.developer.grant import find_device, grant_model
from triparty.developer.home import Home
from triparty.developer.publish import publish_model
from triparty.developer.settings import DeveloperSettings
from triparty.device.home import Home as DeviceHome

KEYED, PLAIN = "keyed", "plain"
SESSIONS, PROMPT = 8, 16
UNLIMITED = {"requests_per_s_per_principal": 100_000, "requests_per_s_per_developer": 100_000}
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Server:
    """One cloud process with both models."""

    client: CloudClient
    source: Path
    width: int

    def decode(self, model: str, rows: Rows) -> list[float]:
        """Seconds of each step of one row, after a prompt, in a session of its own."""
        return list(self.decoding(model, rows))

    def decoding(self, model: str, rows: Rows) -> Iterator[float]:
        """As `decode`, one at a time."""
        session = self.client.open_session(model).id
        try:
            self._step(session, rows[:PROMPT], 0)
            for at in range(PROMPT, len(rows)):
                begun = time.perf_counter()
                self._step(session, rows[at : at + 1], at)
                yield time.perf_counter() - begun
        finally:
            self.client.close_session(session)

    def together(self, model: str, rows: Rows) -> float:
        """Seconds of several sessions side by side."""
        begun = time.perf_counter()
        with ThreadPoolExecutor(SESSIONS) as threads:
            list(threads.map(partial(self.decode, model), [rows] * SESSIONS))
        return time.perf_counter() - begun

    def _step(self, session: str, rows: Rows, position: int) -> None:
        self.client.step(
            session,
            Frame.of(rows),
            position=position,
            request_id=f"at-{position}",
            reply="logits",
        )


@contextmanager
def served(source: Path, width: int) -> Iterator[Server]:
    """A server with a model under keys and, published as it is, without."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with device_with(source, folder, name=KEYED, **UNLIMITED):
            shutil.copytree(folder / "out", folder / "original")
            for file in (folder / "original" / "model").iterdir():
                file.unlink()
            for pattern in ("*.safetensors", "config.json"):
                for file in source.glob(pattern):
                    shutil.copy(file, folder / "original" / "model")
            _publish(Home(folder / "developer"), folder / "original")
            with DeviceHome(folder / "device").access().client() as client:
                yield Server(client, source, width)


def _publish(home: Home, out: Path) -> None:
    """Publishes the original, and lets the device use it."""
    settings, now = DeveloperSettings(), datetime.now(UTC) + timedelta(seconds=10)
    publish_model(home, out, name=PLAIN, settings=settings, now=now)
    with home.access().client() as client:
        record, model = find_device(home, client, "bench"), home.existing_model(PLAIN)
        later = now + timedelta(seconds=2)
        grant_model(home, client, model, record, settings=settings, now=later)


@contextmanager
def small_gpt2_sized(effort: Effort) -> Iterator[Server]:
    """Random weights of the size of GPT-2 small; a tiny one for a short run."""
    layers, width = (2, 256) if effort.quick else (12, 768)
    with tempfile.TemporaryDirectory() as name:
        source = random_llama(Path(name) / "source", layers=layers, width=width)
        with served(source, width) as server:
            yield server


@contextmanager
def stories(_: Effort) -> Iterator[Server]:
    """The trained stories260K."""
    with served(real_model("stories260K"), 64) as server:
        yield server


MODELS = {"GPT-2-sized": small_gpt2_sized, "stories260K": stories}


def _rows(server: Server, effort: Effort) -> Rows:
    count = PROMPT + (12 if effort.quick else 48)
    return np.random.default_rng(1).standard_normal((count, server.width)).astype(np.float32)


def _against_original(name: str) -> tuple[Case, ...]:
    @case(
        f"throughput of 8 sessions, protected over unprotected, same server, {name}",
        unit="ratio",
        better="higher",
        target=0.97,
        reference="target: at least 0.97 in the same run, taken in turn",
    )
    def throughput(effort: Effort) -> Iterator[float]:
        with MODELS[name](effort) as server:
            rows = _rows(server, effort)
            for model in (KEYED, PLAIN):
                server.together(model, rows)
            for _ in range(effort.runs):
                original = server.together(PLAIN, rows)
                yield original / server.together(KEYED, rows)

    @case(
        f"tokens/s of 8 sessions over those of one, same server, {name}",
        unit="ratio",
        better="higher",
        target=3.0,
        reference="target: at least 3 on two cores; wall time over HTTPS, prompts included",
    )
    def sessions(effort: Effort) -> Iterator[float]:
        with MODELS[name](effort) as server:
            rows = _rows(server, effort)
            server.together(KEYED, rows)
            for _ in range(effort.runs):
                begun = time.perf_counter()
                server.decode(KEYED, rows)
                alone = time.perf_counter() - begun
                yield SESSIONS * alone / server.together(KEYED, rows)

    @case(
        f"speed of a decode step, protected over unprotected, same server, {name}",
        unit="ratio of medians",
        better="higher",
        target=0.97,
        reference="target: at least 0.97 in the same run, taken in turn",
    )
    def latency(effort: Effort) -> Iterator[float]:
        with MODELS[name](effort) as server:
            rows = _rows(server, effort)
            for model in (KEYED, PLAIN):
                server.decode(model, rows)
            for _ in range(effort.runs):
                keyed, plain = _in_turn(
                    server.decoding(KEYED, rows), server.decoding(PLAIN, rows)
                )
                yield plain / keyed

    @case(
        f"what a decode step over loopback costs more than in transformers, {name}",
        unit="ms",
        better="lower",
        target=2.0,
        reference="target: at most 2 ms; logits of a vocabulary of "
        + ("512" if name == "stories260K" else "1000"),
    )
    def loopback(effort: Effort) -> Iterator[float]:
        with MODELS[name](effort) as server:
            rows = _rows(server, effort)
            model = AutoModelForCausalLM.from_pretrained(server.source, dtype=torch.float32)
            server.decode(KEYED, rows)
            for _ in range(effort.runs):
                there, here = _in_turn(server.decoding(KEYED, rows), _decoding(model, rows))
                yield 1e3 * (there - here)

    return throughput, sessions, latency, loopback


def _in_turn(one: Iterator[float], other: Iterator[float]) -> tuple[float, float]:
    """The medians of two decodings, a step of each in turn: what disturbs disturbs both."""
    pairs = list(zip(one, other, strict=True))
    return tuple(statistics.median(each) for each in zip(*pairs, strict=True))


def _decoding(model: Any, rows: Rows) -> Iterator[float]:
    """Seconds of each step of one row through the stock class, as `Server.decoding`."""
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(inputs_embeds=torch.from_numpy(rows[None, :PROMPT]), past_key_values=cache)
    for at in range(PROMPT, len(rows)):
        begun = time.perf_counter()
        with torch.inference_mode():
            row = torch.from_numpy(rows[None, at : at + 1])
            model(inputs_embeds=row, past_key_values=cache).logits.numpy()
        yield time.perf_counter() - begun


CASES: tuple[Case, ...] = tuple(each for name in MODELS for each in _against_original(name))
