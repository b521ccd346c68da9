"""Checkpoints for benchmarks: real ones where the test data are, random ones of any size."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT, BenchError


def real_model(name: str) -> Path:
    """The folder of a real model of the test data."""
    data = Path(os.environ.get("TRIPARTY_TEST_DATA", ROOT.parent / "shared" / "data"))
    folder = data / "models" / name
    if not folder.is_dir():
        raise BenchError(f"{folder} is absent: set TRIPARTY_TEST_DATA")
    return folder


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


def _tokenizer(target: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>")).save(str(target))
