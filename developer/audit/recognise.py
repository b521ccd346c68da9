"""Whether a model began as public weights: what an attacker of level K3 would look for.

Half of the layers give the key that explains one model by the other. In the other half, one
matrix of each layer tells which neuron is which; whether the layer's other matrices then agree
is a question that nothing was fitted to, so models that have only their shape in common score
near 0 and fine-tuned ones near 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from triparty.common.errors import TripartyError
from triparty.developer.audit.claims import Matrix
from triparty.developer.audit.keyfinding import found_key
from triparty.developer.audit.pairing import paired, unit
from triparty.developer.audit.reading import Neurons, Reading, incomparable
from triparty.developer.audit.views import ModelView

RECOGNISED = 0.5
"""From which score on a model is said to have begun as a candidate."""

# model_type, width, layers, vocabulary (0: models of that shape have several sizes of it).
PUBLIC_SHAPES: Mapping[tuple[str, int, int, int], str] = {
    ("bert", 384, 6, 30522): "all-MiniLM-L6-v2",
    ("bert", 384, 12, 30522): "all-MiniLM-L12-v2",
    ("bert", 768, 12, 28996): "bert-base-cased",
    ("bert", 768, 12, 30522): "bert-base-uncased",
    ("bert", 1024, 24, 28996): "bert-large-cased",
    ("bert", 1024, 24, 30522): "bert-large-uncased",
    ("deepseek_v3", 7168, 61, 129280): "DeepSeek-V3 or -R1",
    ("gemma", 2048, 18, 256000): "gemma-2b",
    ("gemma", 3072, 28, 256000): "gemma-7b",
    ("gemma2", 2304, 26, 256000): "gemma-2-2b",
    ("gemma2", 3584, 42, 256000): "gemma-2-9b",
    ("gemma2", 4608, 46, 256000): "gemma-2-27b",
    ("gemma3_text", 1152, 26, 262144): "gemma-3-1b",
    ("gpt2", 768, 12, 50257): "gpt2",
    ("gpt2", 1024, 24, 50257): "gpt2-medium",
    ("gpt2", 1280, 36, 50257): "gpt2-large",
    ("gpt2", 1600, 48, 50257): "gpt2-xl",
    ("llama", 2048, 16, 128256): "Llama-3.2-1B",
    ("llama", 2048, 22, 32000): "TinyLlama-1.1B",
    ("llama", 3072, 28, 128256): "Llama-3.2-3B",
    ("llama", 4096, 32, 32000): "Llama-2-7B",
    ("llama", 4096, 32, 128256): "Llama-3-8B or -3.1-8B",
    ("llama", 5120, 40, 32000): "Llama-2-13B",
    ("llama", 8192, 80, 32000): "Llama-2-70B",
    ("llama", 8192, 80, 128256): "Llama-3-70B, -3.1-70B or -3.3-70B",
    ("mistral", 4096, 32, 32000): "Mistral-7B-v0.1",
    ("mistral", 4096, 32, 32768): "Mistral-7B-v0.3",
    ("mixtral", 4096, 32, 32000): "Mixtral-8x7B",
    ("qwen2", 896, 24, 151936): "Qwen2.5-0.5B",
    ("qwen2", 1536, 28, 151936): "Qwen2.5-1.5B",
    ("qwen2", 2048, 36, 151936): "Qwen2.5-3B",
    ("qwen2", 3584, 28, 152064): "Qwen2.5-7B",
    ("qwen2", 5120, 48, 152064): "Qwen2.5-14B",
    ("qwen2", 5120, 64, 152064): "Qwen2.5-32B",
    ("qwen2", 8192, 80, 152064): "Qwen2.5-72B",
    ("qwen3", 1024, 28, 151936): "Qwen3-0.6B",
    ("qwen3", 2048, 28, 151936): "Qwen3-1.7B",
    ("qwen3", 2560, 36, 151936): "Qwen3-4B",
    ("qwen3", 4096, 36, 151936): "Qwen3-8B",
    ("t5", 512, 6, 32128): "t5-small",
    ("t5", 768, 12, 32128): "t5-base",
}
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")


def recognised(hosted: ModelView, candidates: Sequence[Path]) -> list[tuple[str, float]]:
    """How surely a model, keyed or not, began as each of some public checkpoints.

    Args:
        hosted: the model.
        candidates: folders of checkpoints.

    Returns:
        Each candidate that can be compared, with its score from 0 to 1, the likeliest first;
        `RECOGNISED` divides the two. Its name is that of its folder, or on the hub.
    """
    scores = []
    for folder in candidates:
        try:
            base = ModelView.open(folder)
        except TripartyError:
            continue  # of a family without a plan: none that a hosted model can be
        if incomparable(base, hosted) is None:
            scores.append((name_of(folder), likeness(base, hosted)))
    return sorted(scores, key=lambda one: (-one[1], one[0]))


def likeness(base: ModelView, hosted: ModelView) -> float:
    """0 for models that have their shape in common alone, up to 1 for the same weights.

    Args:
        base: a public model.
        hosted: a model of the same family and layers, under any key or none.
    """
    first, second = Reading.of(base), Reading.of(hosted)
    fitted, held = _halves(first)
    key = found_key(_only(first, fitted), _only(second, fitted)).key
    matched, random = [], []
    for name, group in held.items():
        other = second.neurons[name]
        pairs = paired(_sides(group, slice(0, 1)), _sides(other, slice(0, 1)), key)
        rng = np.random.default_rng(0)
        for a, b in zip(group.sides[1:], other.sides[1:], strict=True):
            left = unit(key.T @ a.matrix)[:, pairs.first]
            right = unit(b.matrix)[:, pairs.second]
            matched.append(_agreement(left, right, scaled=a.scaled))
            shuffled = right[:, rng.permutation(right.shape[1])]
            random.append(_agreement(left, shuffled, scaled=a.scaled))
    chance = float(np.mean(random))
    return float(np.clip((np.mean(matched) - chance) / (1 - chance), 0.0, 1.0))


def name_of(folder: Path) -> str:
    """A folder's name; its hub id in the cache (`models--organisation--name/snapshots/...`)."""
    if folder.parent.name == "snapshots":
        return "/".join(folder.parent.parent.name.split("--")[1:])
    return folder.name


def cached_candidates(config: Mapping[str, Any]) -> list[Path]:
    """The snapshots in the local Hugging Face cache that have the shape of a model.

    Args:
        config: of the model, parsed.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    folders = [
        revision.snapshot_path
        for repository in repositories
        if repository.repo_type == "model"
        for revision in repository.revisions
    ]
    return sorted(folder for folder in folders if _has_shape(folder, shape(config)))


def shape_hint(config: Mapping[str, Any]) -> str | None:
    """Which well-known public model has the shape of this one, if one has."""
    return PUBLIC_SHAPES.get(shape(config))


def shape(config: Mapping[str, Any]) -> tuple[str, int, int, int]:
    """Family, width, layers and vocabulary of a parsed configuration, 0 where unsaid."""
    sizes = (_first(config, names) for names in (_WIDTHS, _LAYERS, ("vocab_size",)))
    width, layers, vocabulary = sizes
    return str(config.get("model_type")), width, layers, vocabulary


def _first(config: Mapping[str, Any], names: Sequence[str]) -> int:
    found = [config[name] for name in names if isinstance(config.get(name), int)]
    return int(found[0]) if found else 0


def _has_shape(folder: Path, wanted: tuple[str, int, int, int]) -> bool:
    from triparty.developer.protect.checkpoints import read_json

    try:
        return shape(read_json(folder / "config.json")) == wanted
    except TripartyError:
        return False


def _halves(reading: Reading) -> tuple[Mapping[str, Neurons], Mapping[str, Neurons]]:
    """Groups to find the key by, and others of two matrices or more to judge it by."""
    several = {n: group for n, group in reading.neurons.items() if len(group.sides) > 1}
    judging = dict(list(several.items())[1::2]) or several
    fitting = {n: group for n, group in reading.neurons.items() if n not in judging}
    return fitting or {n: _sides(group, slice(0, 1)) for n, group in judging.items()}, judging


def _only(reading: Reading, groups: Mapping[str, Neurons]) -> Reading:
    kept = {
        name: _sides(reading.neurons[name], slice(0, len(group.sides)))
        for name, group in groups.items()
    }
    return Reading(kept, reading.vectors, reading.lengths)


def _sides(group: Neurons, which: slice) -> Neurons:
    return Neurons(group.sides[which])


def _agreement(left: Matrix, right: Matrix, *, scaled: bool) -> float:
    cosines = np.einsum("dn,dn->n", left, right)
    return float((np.abs(cosines) if scaled else cosines).mean())
