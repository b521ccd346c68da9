"""Trained weights in the houses of other families: stories260K, a LLaMA, as what contains it.

Mistral without a window is LLaMA; so is Qwen2 with biases of zero, Gemma with LLaMA's
activation and its own way to store norms and rows, and Mixtral with experts that are copies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Tensors = dict[str, NDArray[Any]]
EXPERTS = 4


def rehoused(stories: Path, family: str, folder: Path) -> Path:
    """A checkpoint of another family that answers as stories260K does.

    Args:
        stories: the folder of stories260K.
        family: a key of `HOUSES`.
        folder: where; made.
    """
    config = json.loads((stories / "config.json").read_text(encoding="utf-8"))
    for name in ("attention_bias", "mlp_bias", "pretraining_tp"):
        del config[name]
    tensors, changes = HOUSES[family](load_file(stories / "model.safetensors"), config)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        copyfile(stories / name, folder / name)
    return folder


def mistral(tensors: Tensors, config: Mapping[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """The same tensors."""
    return tensors, _named("mistral", "Mistral", sliding_window=None)


def qwen2(tensors: Tensors, config: Mapping[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """With biases of zero."""
    biases = {
        name.removesuffix("weight") + "bias": np.zeros(len(weight), weight.dtype)
        for name, weight in tensors.items()
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))
    }
    return tensors | biases, _named("qwen2", "Qwen2", use_sliding_window=False)


def gemma(tensors: Tensors, config: Mapping[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """Norms less one; rows, which Gemma multiplies by the root of the width, divided by it."""
    rows = "model.embed_tokens.weight"
    head = tensors[rows]
    norms = {name: weight - 1 for name, weight in tensors.items() if weight.ndim == 1}
    divided = head / np.sqrt(config["hidden_size"]).astype(head.dtype)
    houses = tensors | norms | {rows: divided, "lm_head.weight": head.copy()}
    return houses, _named("gemma", "Gemma", tie_word_embeddings=False)


def mixtral(tensors: Tensors, config: Mapping[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """With experts that are copies, and a router that picks any two of them."""
    rng = np.random.default_rng(0)
    parts = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
    made: Tensors = {}
    for name, weight in tensors.items():
        before, _, part = name.removesuffix(".weight").rpartition(".")
        if part not in parts:
            made[name] = weight
            continue
        block = before.replace("mlp", "block_sparse_moe")
        for expert in range(EXPERTS):
            made[f"{block}.experts.{expert}.{parts[part]}.weight"] = weight.copy()
        router = rng.normal(size=(EXPERTS, config["hidden_size"]))
        made[f"{block}.gate.weight"] = router.astype(weight.dtype)
    counts = {"num_local_experts": EXPERTS, "num_experts_per_tok": 2, "sliding_window": None}
    return made, _named("mixtral", "Mixtral", **counts)


def _named(model_type: str, name: str, **changes: Any) -> dict[str, Any]:
    return {"model_type": model_type, "architectures": [f"{name}ForCausalLM"], **changes}


House = Callable[[Tensors, Mapping[str, Any]], tuple[Tensors, dict[str, Any]]]
HOUSES: Mapping[str, House] = {
    "mistral": mistral,
    "qwen2": qwen2,
    "gemma": gemma,
    "mixtral": mixtral,
}
