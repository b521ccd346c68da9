"""What the serving tests share: tiny models, a reference to compare with, a fake engine."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from triparty.cloud.serving.engine import Arrays, ModelInfo, Work

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """The settings that serving reads."""

    max_body_bytes: int = 1 << 20
    max_rows_per_step: int = 256
    max_positions: int = 8192
    max_sessions_per_principal: int = 16
    max_sessions: int = 64
    session_idle_s: float = 600.0
    max_batch_rows: int = 512
    threads: int | None = 1
    trace: Path | None = None


@dataclass(frozen=True)
class Published:
    """A published model."""

    folder: Path
    name: str = "story"
    developer: str = "ed25519:dev"
    version: int = 1
    epoch: int = 1


class Reference:
    """A stock model run alone, with its own stock cache: what serving must equal."""

    def __init__(self, model: PreTrainedModel, embeddings: Rows) -> None:
        self.model = model
        self.embeddings = embeddings

    @classmethod
    def of(cls, folder: Path) -> Reference:
        is_gpt2 = "gpt2" in (folder / "config.json").read_text()
        model = (GPT2LMHeadModel if is_gpt2 else LlamaForCausalLM).from_pretrained(folder)
        embedding = model.get_input_embeddings()
        assert isinstance(embedding, torch.nn.Embedding)
        return cls(model, embedding.weight.detach().numpy())

    def logits(self, rows: Rows) -> Rows:
        """Logits (T, V) of rows run at once."""
        with torch.inference_mode():
            return np.asarray(self.model(inputs_embeds=torch.tensor(rows)[None]).logits[0])

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """The next `count` ids, one cached step each."""
        cache = DynamicCache(config=self.model.config)
        ids, answer = list(prompt), []
        with torch.inference_mode():
            for _ in range(count):
                output = self.model(torch.tensor([ids]), past_key_values=cache, use_cache=True)
                ids = [int(output.logits[0, -1].argmax())]
                answer += ids
        return answer


def _randomise(model: PreTrainedModel, seed: int) -> None:
    """Norm weights and biases too: those that are 1 and 0 hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = "norm" in name or ".ln_" in name
        parameter.data = 1 + 0.3 * noise if is_norm and "weight" in name else 0.3 * noise


def _tiny_llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=61,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=300,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=False,
        )
    )


def _tiny_gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=53,
            n_embd=32,
            n_layer=3,
            n_head=4,
            n_positions=300,
            scale_attn_by_inverse_layer_idx=True,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


_TINY = {"llama": _tiny_llama, "gpt2": _tiny_gpt2}


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoint folders of a tiny llama (grouped heads) and a tiny gpt2, random weights."""
    folders = {}
    for seed, (family, make) in enumerate(_TINY.items()):
        model = make()
        _randomise(model, seed)
        folders[family] = tmp_path_factory.mktemp(family)
        model.save_pretrained(folders[family])
    return folders


@pytest.fixture(params=sorted(_TINY))
def tiny_folder(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> Path:
    """The folder of each tiny model in turn."""
    return tiny_folders[request.param]


@pytest.fixture
def reference(tiny_folder: Path) -> Reference:
    """The stock model of `tiny_folder`."""
    return Reference.of(tiny_folder)


@pytest.fixture(scope="session")
def reference_of() -> Callable[[Path], Reference]:
    return Reference.of


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real models; skips without them."""
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("TRIPARTY_TEST_DATA", root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}: set TRIPARTY_TEST_DATA")
    return folder


@pytest.fixture
def settings() -> type[Settings]:
    return Settings


@pytest.fixture
def published() -> type[Published]:
    return Published


FAKE_INFO = ModelInfo(family="fake", width=4, vocabulary=7, positions=300)


@dataclass
class FakeEngine:
    """An engine without a model: the hidden state is the sum of all rows so far.

    Attributes:
        gate: batches wait for it.
        entered: set when a batch has begun.
        batches: every batch that began.
        error: what the next batch raises.
    """

    info: ModelInfo = FAKE_INFO
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    batches: list[list[Work]] = field(default_factory=list)
    caches: dict[str, Rows] = field(default_factory=dict)
    error: Exception | None = None
    fork_error: Exception | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    def run(self, batch: Sequence[Work]) -> list[Arrays]:
        self.batches.append(list(batch))
        self.entered.set()
        self.gate.wait(10)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return [self._one(work) for work in batch]

    def _one(self, work: Work) -> Arrays:
        held = self.caches.get(work.session, np.zeros((0, 4), np.float32))
        if len(held) < work.position:
            raise RuntimeError("the cache misses rows")
        held = np.concatenate([held[: work.position], work.rows])
        self.caches[work.session] = held
        return () if work.reply is None else (held.sum(axis=0, keepdims=True),)

    def fork(self, source: str, target: str, *, position: int) -> None:
        if self.fork_error is not None:
            raise self.fork_error
        self.caches[target] = self.caches[source][:position]

    def close(self, session: str) -> None:
        self.caches.pop(session, None)


@pytest.fixture
def fake_engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine to its end, at most ten seconds."""

    def runner(work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(10):
                return await work

        return asyncio.run(bounded())

    return runner
