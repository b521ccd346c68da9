"""Tiny random models, and how a test computes with a protected one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from live_cloud import Developer, LiveCloud, running_cloud
from numpy.typing import NDArray

LLAMA = {
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
GPT2 = {
    "vocab_size": 51,
    "n_positions": 32,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 3,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


class MakeModel(Protocol):
    def __call__(
        self, family: str, *, dtype: str = ..., shard: str = ..., **options: Any
    ) -> Path: ...


class Agree(Protocol):
    def __call__(self, source: Path, out: Path, *, double: bool = ...) -> float: ...


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{i}": i for i in range(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "name_or_path": "/home/me/secret"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def save_model(folder: Path, family: str, *, dtype: str, shard: str, **options: Any) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    if family == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(**{**LLAMA, **options}))
    else:
        model = GPT2LMHeadModel(GPT2Config(**{**GPT2, **options}))
    generator = torch.Generator().manual_seed(7)
    for name, weights in model.named_parameters():
        values = torch.randn(weights.shape, generator=generator)
        scale = 1.0 if "norm" in name or "ln_" in name or name.endswith("bias") else 0.3
        # On a grid of 1/64, so that a row plus a position is exact in float32.
        weights.data = torch.round(values * scale * 64).to(weights.dtype) / 64
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    write_tokenizer(folder, model.config.vocab_size)


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Saves a tiny model whose every weight is random, norms and biases included."""

    def make(
        family: str, *, dtype: str = "float32", shard: str = "1GB", **options: Any
    ) -> Path:
        folder = tmp_path / f"source-{len(list(tmp_path.iterdir()))}"
        save_model(folder, family, dtype=dtype, shard=shard, **options)
        return folder

    return make


@pytest.fixture(scope="session")
def protected_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A protected tiny model; tests take a copy."""
    from triparty.developer.protect import protect

    folder = tmp_path_factory.mktemp("protected-once")
    save_model(folder / "source", "llama", dtype="float32", shard="1GB")
    protect(str(folder / "source"), folder / "out")
    return folder / "out"


@pytest.fixture
def protected(protected_once: Path, tmp_path: Path) -> Path:
    """A protected tiny model that the test may change."""
    return Path(shutil.copytree(protected_once, tmp_path / "models" / "protected"))


@pytest.fixture(scope="session")
def live_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCloud]:
    """One real cloud for all tests: developers do not see each other."""
    with running_cloud(tmp_path_factory.mktemp("cloud") / "data") as cloud:
        yield cloud


@pytest.fixture
def newcomer(live_cloud: LiveCloud, tmp_path: Path) -> Developer:
    """A developer with keys and without an account."""
    return Developer.new(live_cloud, tmp_path)


@pytest.fixture
def developer(newcomer: Developer) -> Developer:
    """An enrolled developer."""
    newcomer.enroll()
    return newcomer


def stock_logits(folder: Path, ids: NDArray[np.int64], *, double: bool) -> NDArray[Any]:
    import torch

    from triparty.developer.stock import load_model

    model = load_model(folder)
    model = model.double() if double else model
    with torch.inference_mode():
        logits: NDArray[Any] = (
            model(input_ids=torch.from_numpy(ids)[None]).logits[0].double().numpy()
        )
    return logits


def keyed_logits(out: Path, ids: NDArray[np.int64], *, double: bool) -> NDArray[Any]:
    """Logits of a protected model, in the order of the cloud."""
    import torch

    from triparty.common.keying import Bundle
    from triparty.developer.stock import load_model

    model = load_model(out / "model")
    model = model.double() if double else model
    rows = Bundle.open(out / "device").rows(ids, start=0).as_float32()
    given = torch.from_numpy(rows)[None].to(model.dtype)
    with torch.inference_mode():
        reply: NDArray[Any] = model(inputs_embeds=given).logits[0].double().numpy()
    return reply


@pytest.fixture
def disagreement() -> Agree:
    """max|a - b| / max|a| between a source's logits and its protected form's."""

    def measure(source: Path, out: Path, *, double: bool = True) -> float:
        from triparty.common.keying import Bundle

        bundle = Bundle.open(out / "device")
        ids = np.random.default_rng(3).integers(0, bundle.info.vocabulary, 20)
        plain = stock_logits(source, ids, double=double)
        keyed = bundle.plain_logits(keyed_logits(out, ids, double=double))  # type: ignore[arg-type]
        return float(np.abs(plain - keyed).max() / np.abs(plain).max())

    return measure


@pytest.fixture
def bits_of() -> Callable[[Path], dict[str, NDArray[Any]]]:
    """Every tensor of a folder as bit patterns."""

    def read(folder: Path) -> dict[str, NDArray[Any]]:
        from triparty.common.tensorfile import TensorFile

        files = [TensorFile.open(path) for path in sorted(folder.glob("*.safetensors"))]
        return {name: np.array(file.bits(name)) for file in files for name in file.entries}

    return read
