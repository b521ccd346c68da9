"""What the serving tests share: tiny models, a reference to compare with, a fake engine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    DynamicCache,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from triparty.cloud.serving.engine import (
    Arrays,
    EncoderInfo,
    ModelInfo,
    ReplyKind,
    Text,
    TextInput,
    Work,
)

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """The settings that serving reads."""

    max_body_bytes: int = 1 << 20
    max_rows_per_step: int = 256
    max_reply_rows: int = 64
    max_positions: int = 8192
    max_sessions_per_principal: int = 16
    max_sessions_per_developer: int = 32
    max_steps_per_developer: int = 64
    max_cache_bytes_per_developer: int = 1 << 30
    max_models_per_developer: int = 16
    max_memory_bytes: int | None = None
    metrics_names: int = 0
    max_sessions: int = 64
    session_idle_s: float = 600.0
    max_batch_rows: int = 512
    threads: int | None = 1
    device: str = "auto"
    max_memory: Mapping[str, str] = field(default_factory=dict)
    dtype: str | None = None
    replicas: int = 1
    max_replicas: int | None = None
    sessions_per_replica: int = 32
    replica_gpus: float = 0.0
    ray_address: str | None = None
    trace: Path | None = None


@dataclass(frozen=True)
class Published:
    """A published model."""

    folder: Path
    name: str = "story"
    developer: str = "ed25519:dev"
    version: int = 1
    epoch: int = 1
    once: bool = False

    @property
    def current(self) -> int:
        return self.version


class Reference:
    """A stock model run alone, with its own stock cache: what serving must equal."""

    def __init__(self, model: PreTrainedModel, embeddings: Rows) -> None:
        self.model = model
        self.embeddings = embeddings

    @classmethod
    def of(cls, folder: Path, *, dtype: torch.dtype = torch.float32) -> Reference:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager"
        )
        ids = torch.arange(model.config.vocab_size)
        with torch.inference_mode():  # called, not read: Gemma scales what it looks up
            return cls(model, model.get_input_embeddings()(ids).float().numpy())

    def logits(self, rows: Rows) -> Rows:
        """Logits (T, V) of rows run at once."""
        return self.run(rows)[1]

    def run(self, rows: Rows) -> tuple[Rows, Rows]:
        """Hidden states (T, D) and logits (T, V) of rows run at once, in the model's dtype."""
        embeds = torch.tensor(rows, dtype=self.model.dtype)[None]
        states: list[torch.Tensor] = []
        body = self.model.base_model
        hook = body.register_forward_hook(lambda _, __, out: states.append(out[0][0]))
        with torch.inference_mode(), hook:
            cache = DynamicCache(config=self.model.config)
            output = self.model(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        return states[0].numpy(), output.logits[0].numpy()

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
    """Norm weights, biases and routers' corrections too: 1 and 0 hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    norm = 0 if "gemma" in model.config.model_type else 1  # Gemma's norms add the 1 themselves
    for name, tensor in model.state_dict().items():
        noise = 0.3 * torch.randn(tensor.shape, generator=generator)
        is_norm = ("norm" in name or ".ln_" in name) and "weight" in name
        tensor.copy_(norm + noise if is_norm else noise)


_SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 300,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
_ROPES = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 4.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}

_TINY: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(
        vocab_size=53,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=300,
        scale_attn_by_inverse_layer_idx=True,
        bos_token_id=0,
        eos_token_id=0,
    ),
    "llama": LlamaConfig(**_SMALL, attention_bias=True, mlp_bias=True),
    "mistral": MistralConfig(**_SMALL, head_dim=12, sliding_window=11),
    "qwen2": Qwen2Config(
        **_SMALL | {"num_hidden_layers": 3, "tie_word_embeddings": True},
        head_dim=12,
        use_sliding_window=True,
        sliding_window=9,
        max_window_layers=1,
    ),
    "qwen3": Qwen3Config(
        **_SMALL | {"num_hidden_layers": 3},
        head_dim=12,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=20,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gemma": GemmaConfig(
        **_SMALL | {"num_key_value_heads": 1, "tie_word_embeddings": True}, head_dim=12
    ),
    "gemma2": Gemma2Config(
        **_SMALL | {"num_hidden_layers": 4, "tie_word_embeddings": True},
        head_dim=12,
        query_pre_attn_scalar=20,
        sliding_window=7,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    "gemma3_text": Gemma3TextConfig(
        **_SMALL | {"num_hidden_layers": 3},
        head_dim=12,
        query_pre_attn_scalar=20,
        sliding_window=8,
        sliding_window_pattern=3,
        rope_parameters=_ROPES,
        final_logit_softcapping=4.0,
    ),
    "mixtral": MixtralConfig(
        **_SMALL, sliding_window=13, num_local_experts=5, num_experts_per_tok=2
    ),
    "deepseek_v3": DeepseekV3Config(
        **_SMALL | {"num_hidden_layers": 3, "num_key_value_heads": 4},
        attention_bias=True,
        q_lora_rank=20,
        kv_lora_rank=16,
        qk_nope_head_dim=10,
        qk_rope_head_dim=6,
        v_head_dim=14,
        moe_intermediate_size=16,
        n_routed_experts=8,
        n_shared_experts=2,
        num_experts_per_tok=3,
        n_group=4,
        topk_group=2,
        first_k_dense_replace=1,
    ),
}
"""A tiny model of each family, with what is special to it: windows, bounds, experts."""


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoint folders of the tiny models, random weights."""
    folders = {}
    for seed, (family, config) in enumerate(_TINY.items()):
        model = AutoModelForCausalLM.from_config(config)
        _randomise(model, seed)
        folders[family] = tmp_path_factory.mktemp(family)
        model.save_pretrained(folders[family])
    return folders


@pytest.fixture
def copy_with(tmp_path: Path) -> Callable[..., Path]:
    """Copies a folder, with other values of configuration keys; None removes a key."""

    def copy(folder: Path, **changes: Any) -> Path:
        target = tmp_path / "model"
        shutil.copytree(folder, target)
        path = target / "config.json"
        config = json.loads(path.read_text()) | changes
        kept = {key: value for key, value in config.items() if value is not None}
        path.write_text(json.dumps(kept))
        return target

    return copy


@pytest.fixture(params=sorted(_TINY))
def tiny_folder(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> Path:
    """The folder of each tiny model in turn."""
    return tiny_folders[request.param]


@pytest.fixture
def reference(tiny_folder: Path) -> Reference:
    """The stock model of `tiny_folder`."""
    return Reference.of(tiny_folder)


@pytest.fixture(scope="session")
def reference_of() -> Callable[..., Reference]:
    return Reference.of


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real models; skips without them."""
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("TRIPARTY_TEST_DATA", root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}: set TRIPARTY_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
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

    @property
    def cache_bytes(self) -> int:
        return sum(cache.nbytes for cache in self.caches.values())

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
        if work.reply is None:
            return ()
        assert 1 <= work.reply.rows <= len(work.rows)
        return (held.cumsum(axis=0)[len(held) - work.reply.rows :],)

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
    """Runs a coroutine to its end, at most a minute."""

    def runner(work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(60):
                return await work

        return asyncio.run(bounded())

    return runner


FAKE_ENCODER_INFO = EncoderInfo(
    family="fake",
    reply=ReplyKind.HIDDEN,
    outputs=4,
    per_row=True,
    text=TextInput(positions=64, width=4, vocabulary=7),
)


@dataclass
class FakeEncoder:
    """An encoder without a model: each row is answered by its double.

    Attributes:
        gate: batches wait for it.
        entered: set when a batch has begun.
        batches: every batch that began.
        error: what the next batch raises.
    """

    info: EncoderInfo = FAKE_ENCODER_INFO
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    batches: list[list[Text]] = field(default_factory=list)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    def run(self, batch: Sequence[Text]) -> list[Arrays]:
        self.batches.append(list(batch))
        self.entered.set()
        self.gate.wait(10)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return [(2 * text.tokens,) for text in batch]


@pytest.fixture
def fake_encoder() -> FakeEncoder:
    return FakeEncoder()
