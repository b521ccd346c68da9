"""The law: a protected model, fed keyed rows, answers the original's logits, keyed.

Every control breaks one rule of the plan and must break the law with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from triparty.developer.protect import Choices, protect
from triparty.developer.protect.families import FAMILIES
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.spaces import (
    Attention,
    Space,
    attention_spaces,
    fixed,
    permuted,
)

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, grouped queries": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, all biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, one key-value head": ("llama", {"num_key_value_heads": 1}),
    "llama, a head a group": ("llama", {"num_key_value_heads": 4, "head_dim": None}),
    "llama, wide heads": ("llama", {"head_dim": 10, "hidden_act": "gelu"}),
    "llama, scaled rope": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}},
    ),
    "llama, yarn": (
        "llama",
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4,
                             "original_max_position_embeddings": 16}},
    ),
    "llama, sharded": ("llama", {"shard": "8KB"}),
    "gpt2": ("gpt2", {}),
    "gpt2, untied": ("gpt2", {"tie_word_embeddings": False}),
    "gpt2, inner width and scaling": (
        "gpt2",
        {"n_inner": 17, "scale_attn_by_inverse_layer_idx": True, "activation_function": "relu"},
    ),
    "gpt2, upcast attention": ("gpt2", {"reorder_and_upcast_attn": True}),
}  # fmt: skip
# Stock RMSNorm and softmax compute in float32 whatever the weights are.
DOUBLE = 2e-6


@pytest.mark.parametrize("name", MODELS)
def test_protected_equals_original(
    name: str, make_model: Any, disagreement: Any, tmp_path: Path
) -> None:
    family, options = MODELS[name]
    source, out = make_model(family, **options), tmp_path / "out"
    protect(str(source), out)
    assert disagreement(source, out) <= DOUBLE
    assert disagreement(source, out, double=False) <= 1e-5


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-2), ("bfloat16", 8e-2)])
def test_protected_equals_original_up_to_rounding(
    family: str,
    dtype: str,
    tolerance: float,
    make_model: Any,
    disagreement: Any,
    tmp_path: Path,
) -> None:
    source, out = make_model(family, dtype=dtype), tmp_path / "out"
    assert protect(str(source), out).info.dtype == dtype
    assert disagreement(source, out, double=False) <= tolerance
    # The same 16-bit weights, computed with in float64.
    assert disagreement(source, out) <= DOUBLE


def test_protected_equals_original_in_float64(
    make_model: Any, disagreement: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the float32 inside stock classes out of the way, nothing but float64 is left."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    def forward(self: Any, x: Any) -> Any:
        square = x.pow(2).mean(-1, keepdim=True)
        return self.weight * x / (square + self.variance_epsilon).sqrt()

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)
    for family in ("llama", "gpt2"):
        source, out = make_model(family), tmp_path / family
        protect(str(source), out)
        assert disagreement(source, out) <= 1e-10


def signature(bits: NDArray[Any]) -> NDArray[Any]:
    """What a signed permutation of rows and columns leaves of a tensor."""
    absolute = bits & bits.dtype.type((1 << (8 * bits.itemsize - 1)) - 1)
    if absolute.ndim == 1:
        return np.sort(absolute)
    rows = np.sort(absolute, axis=1)
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_tensor_is_a_signed_permutation_bit_for_bit(
    family: str, dtype: str, make_model: Any, bits_of: Any, tmp_path: Path
) -> None:
    source, out = make_model(family, dtype=dtype), tmp_path / "out"
    plan = protect(str(source), out).plan
    before, after = bits_of(source), bits_of(out / "model")
    before.setdefault(plan.head, before[plan.embedding])
    assert set(before) == set(after)
    for name, bits in before.items():
        if name in (plan.embedding, plan.positions):
            assert not after[name].any()
            continue
        assert (signature(bits) == signature(after[name])).all(), name
        assert (signature(bits.T) == signature(after[name].T)).all(), name
        assert (bits != after[name]).any(), name


def test_device_tables_keep_the_order_of_tokens(
    make_model: Any, bits_of: Any, tmp_path: Path
) -> None:
    source, out = make_model("gpt2"), tmp_path / "out"
    plan = protect(str(source), out).plan
    before, device = bits_of(source), bits_of(out / "device")
    index = np.array(_columns(before[plan.embedding], device["rows"]))
    assert sorted(index) == list(range(plan.width))
    assert (device["rows"] == before[plan.embedding][:, index]).all()
    assert (device["positions"] == before[str(plan.positions)][:, index]).all()


def _columns(before: NDArray[Any], after: NDArray[Any]) -> list[int]:
    return [int((before == column[:, None]).all(axis=0).argmax()) for column in after.T]


Break = Callable[[Plan], Plan]


def with_spaces(plan: Plan, spaces: Mapping[str, Space]) -> Plan:
    return dataclasses.replace(plan, spaces={**plan.spaces, **spaces})


def unmoved(words: str, axis: int, size: Callable[[Plan], int]) -> Break:
    """Leaves an axis of the tensors whose names have `words` as it was."""

    def breaks(plan: Plan) -> Plan:
        rules = tuple(
            dataclasses.replace(
                rule, axes=tuple("unmoved" if i == axis else a for i, a in enumerate(rule.axes))
            )
            if words in rule.pattern
            else rule
            for rule in plan.rules
        )
        plan = with_spaces(plan, {"unmoved": fixed(size(plan))})
        return dataclasses.replace(plan, rules=rules)

    return breaks


def layers(make: Callable[[int, Plan], Mapping[str, Space]]) -> Break:
    """Replaces spaces of each layer."""

    def breaks(plan: Plan) -> Plan:
        for layer in range(plan.layers):
            plan = with_spaces(plan, make(layer, plan))
        return plan

    return breaks


def in_head_permutation(layer: int, plan: Plan) -> Mapping[str, Space]:
    wrong = attention_spaces(layer, Attention(4, 2, 8, rotary=False))
    return {name: wrong[name] for name in (f"query.{layer}", f"key.{layer}")}


def keys_only(layer: int, plan: Plan) -> Mapping[str, Space]:
    return {f"query.{layer}": fixed(plan.spaces[f"query.{layer}"].size)}


def over_all_heads(layer: int, plan: Plan) -> Mapping[str, Space]:
    """One permutation over the width, the same for query and key: mixes the heads."""
    whole = permuted(f"layer {layer} whole", plan.spaces[f"query.{layer}"].size)
    return {f"{kind}.{layer}": whole for kind in ("query", "key")}


def values_by_themselves(layer: int, plan: Plan) -> Mapping[str, Space]:
    return {f"mixed.{layer}": fixed(plan.spaces[f"mixed.{layer}"].size)}


CONTROLS: dict[str, tuple[str, Break]] = {
    "llama: norm weights skipped": ("llama", unmoved("norm.weight", 0, lambda p: p.width)),
    "llama: the final norm skipped": ("llama", unmoved("model.norm", 0, lambda p: p.width)),
    "llama: in-head permutation under rope": ("llama", layers(in_head_permutation)),
    "llama: gate not permuted": (
        "llama",
        unmoved("gate_proj", 0, lambda p: p.spaces["neurons.0"].size),
    ),
    "llama: keys permuted alone": ("llama", layers(keys_only)),
    "llama: values permuted alone": ("llama", layers(values_by_themselves)),
    "llama: down not permuted": (
        "llama",
        unmoved("down_proj", 1, lambda p: p.spaces["neurons.0"].size),
    ),
    "gpt2: norm weights skipped": ("gpt2", unmoved(".weight", 0, lambda p: p.width)),
    "gpt2: norm biases skipped": ("gpt2", unmoved("ln_f.bias", 0, lambda p: p.width)),
    "gpt2: positions skipped": ("gpt2", unmoved("wpe", 1, lambda p: p.width)),
    "gpt2: keys permuted alone": ("gpt2", layers(keys_only)),
    "gpt2: one permutation over all heads": ("gpt2", layers(over_all_heads)),
    "gpt2: values permuted alone": ("gpt2", layers(values_by_themselves)),
}


def only_norms(pattern_break: Break) -> Break:
    """Keeps of a broken plan what concerns norms."""

    def breaks(plan: Plan) -> Plan:
        broken = pattern_break(plan)
        rules = tuple(
            new if "ln_" in new.pattern else old
            for old, new in zip(plan.rules, broken.rules, strict=True)
        )
        return dataclasses.replace(broken, rules=rules)

    return breaks


CONTROLS["gpt2: norm weights skipped"] = (
    "gpt2",
    only_norms(CONTROLS["gpt2: norm weights skipped"][1]),
)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_broken_plan_breaks_the_law(
    name: str,
    make_model: Any,
    disagreement: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    family, breaks = CONTROLS[name]
    right = FAMILIES[family]
    broken = dataclasses.replace(right, plan=lambda options: breaks(right.plan(options)))
    monkeypatch.setitem(FAMILIES, family, broken)
    source, out = make_model(family), tmp_path / "out"
    protect(str(source), out, choices=Choices(), seed=1)
    assert disagreement(source, out) > 1e-2
