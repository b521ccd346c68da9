"""Quantised checkpoints are refused with the remedy; the order that works is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.quantised import int8_rows, quantised_copy
from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect import Choices, protect
from triparty.developer.stock import load_model

REMEDY = "protect first, then quantise"


def add_tensors(source: Path, tensors: dict[str, Any]) -> None:
    """Puts tensors into a checkpoint, in place of those of the same name."""
    from safetensors.torch import load_file, save_file

    file = source / "model.safetensors"
    save_file({**load_file(file), **tensors}, file)


@pytest.mark.parametrize(
    ("method", "form"),
    [
        ("fp8", "DeepSeek-V3"),
        ("bitsandbytes", "bitsandbytes"),
        ("gptq", "GPTQ"),
        ("awq", "AWQ"),
        ("compressed-tensors", "compressed-tensors"),
        ("mxfp4", "MXFP4"),
        ("of_tomorrow", "of_tomorrow"),
        (None, "unnamed"),
    ],
)
@pytest.mark.parametrize("name", ["quantization_config", "compression_config"])
def test_a_configuration_that_says_so_is_refused(
    method: str | None, form: str, name: str, make_model: Any, tmp_path: Path
) -> None:
    source = make_model("llama")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, name: {"quant_method": method}}))
    with pytest.raises(UnsupportedModelError, match=f"{name}.*{form}.*{REMEDY}"):
        protect(str(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


PROJECTION = "model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("added", "dtype", "form"),
    [
        (".weight_scale_inv", "float32", "DeepSeek-V3"),
        (".qweight", "int32", "GPTQ or AWQ"),
        (".g_idx", "int32", "GPTQ"),
        (".SCB", "float32", "bitsandbytes, 8 bit"),
        (".weight.absmax", "float32", "bitsandbytes, 4 bit"),
        (".weight_packed", "int32", "compressed-tensors"),
        (".weight_scale", "float32", "compressed-tensors"),
        (".weight", "float8_e4m3fn", "F8_E4M3"),
        (".weight", "float8_e5m2", "F8_E5M2"),
        (".weight", "int8", "I8"),
        (".weight", "uint8", "packed"),
    ],
)
def test_tensors_that_say_so_are_refused(
    added: str, dtype: str, form: str, make_model: Any, tmp_path: Path
) -> None:
    import torch

    source = make_model("llama")
    tensor = torch.ones(20, 24).to(getattr(torch, dtype))
    add_tensors(source, {PROJECTION + added: tensor})
    with pytest.raises(UnsupportedModelError, match=f"up_proj.*{form}.*{REMEDY}"):
        protect(str(source), tmp_path / "out")


def test_deepseeks_form_is_named_by_its_weights_too(make_model: Any, tmp_path: Path) -> None:
    import torch

    source = make_model("llama")
    weight = torch.ones(20, 24).to(torch.float8_e4m3fn)
    scale = torch.ones(1, 1)
    add_tensors(
        source, {f"{PROJECTION}.weight": weight, f"{PROJECTION}.weight_scale_inv": scale}
    )
    with pytest.raises(UnsupportedModelError, match=r"weight_scale_inv.*DeepSeek-V3"):
        protect(str(source), tmp_path / "out")


def test_an_absent_quantisation_is_none(make_model: Any, tmp_path: Path) -> None:
    source = make_model("llama")
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = None
    (source / "config.json").write_text(json.dumps(config))
    protect(str(source), tmp_path / "out")


# --- protect, then quantise


def both_orders(
    source: Path, choices: Choices, folder: Path, bits_of: Any
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """The hosted weights, quantised after and before they are keyed by the same key."""
    protect(str(source), folder / "out", choices=choices, seed=1)
    after = quantised_copy(folder / "out" / "model", folder / "after")
    before = quantised_copy(source, folder / "before")
    protect(str(before), folder / "other", choices=choices, seed=1)
    return bits_of(after), bits_of(folder / "other" / "model")


@pytest.mark.parametrize("interface", ["embeddings", "tokens"])
def test_int8_of_the_permuted_is_the_permuted_int8_bit_for_bit(
    interface: str, stories_model: Path, bits_of: Any, tmp_path: Path
) -> None:
    choices = Choices.of(norms="keep", interface=interface)
    after, before = both_orders(stories_model, choices, tmp_path, bits_of)
    assert sum(name.endswith("_proj.weight") for name in after) >= 7
    for name in after:
        assert (after[name] == before[name]).all(), name


@pytest.mark.parametrize("options", [{}, {"scheme": "orthogonal"}])
def test_folded_and_mixed_weights_round_otherwise(
    options: dict[str, Any], stories_model: Path, bits_of: Any, tmp_path: Path
) -> None:
    after, before = both_orders(stories_model, Choices.of(**options), tmp_path, bits_of)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert (after[name] != before[name]).any()


def test_rounding_is_to_the_nearest_of_255_levels() -> None:
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((6, 50)).astype(np.float32)
    weights[4] = 0.0
    rounded = int8_rows(weights)
    step = np.abs(weights).max(axis=1, keepdims=True) / 127
    assert (np.abs(rounded - weights) <= step / 2 * 1.0001).all()
    levels = np.rint(rounded / np.where(step == 0, 1, step))
    assert np.abs(levels).max() == 127
    assert (rounded[4] == 0).all()
    assert (rounded != weights).any()
    assert (int8_rows(-weights[:, ::-1]) == -rounded[:, ::-1]).all()


@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
def test_a_quantised_protected_model_loads(
    scheme: str, stories_model: Path, tmp_path: Path
) -> None:
    choices = Choices.of(scheme=scheme)
    protect(str(stories_model), tmp_path / "out", choices=choices, seed=1)
    folder = quantised_copy(tmp_path / "out" / "model", tmp_path / "int8")
    assert load_model(folder).config.model_type == "llama"


def test_the_error_of_int8_is_of_the_same_size_under_every_scheme(
    stories_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import quantised

    monkeypatch.setattr(quantised, "real_model", lambda name: stories_model)
    costs = {
        form: quantised.cost(choices, samples=500, seed=1)
        for form, choices in quantised.FORMS.items()
    }
    plain = costs["without keys"]
    assert 1e-4 < plain.error < 2e-2
    kept = costs["permutation, norms kept"]
    assert abs(kept.error / plain.error - 1) < 1e-2
    assert kept.agreement == plain.agreement
    for form in ("permutation", "orthogonal"):
        assert costs[form].error < 3 * plain.error
        assert costs[form].agreement > 0.9
