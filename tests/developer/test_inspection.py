"""`verify` names what is wrong: damaged tensors, wrong plans; and nothing in a good model."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from family_law import Break, alone, other_spaces, over_all_heads, unmoved
from numpy.typing import NDArray
from typer.testing import CliRunner

from triparty.common.errors import (
    CheckpointError,
    RequestError,
    SettingsError,
    TripartyError,
)
from triparty.common.tensorfile import TensorFile
from triparty.developer.cli_models import add_commands
from triparty.developer.inspection.report import Inspection, inspect
from triparty.developer.inspection.tensors import differences
from triparty.developer.inspection.tolerances import LARGEST, relative_error
from triparty.developer.protect import FAMILIES, Choices, protect
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.modelkey import ModelKey
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.spaces import Scheme, permuted
from triparty.developer.protect.transforms import (
    Dense,
    DirectSum,
    Monomial,
    Transform,
    undone,
)
from triparty.developer.verify import Comparison

APP = typer.Typer()
add_commands(APP)
SCHEMES = ("permutation", "orthogonal")
Change = Callable[[NDArray[Any]], None]


def run(*words: str | Path) -> Any:
    """The result of a command, whatever its exit code."""
    return CliRunner().invoke(APP, [str(word) for word in words])


def changed(file: Path, name: str, change: Change) -> None:
    """Changes the bit patterns of one tensor of a file in place."""
    entry = TensorFile.open(file).entries[name]
    mapped: NDArray[Any] = np.memmap(
        file, entry.bits, mode="r+", offset=entry.offset, shape=entry.shape
    )
    change(mapped)
    mapped.flush()


def flip_lowest_bit(bits: NDArray[Any]) -> None:
    bits[(0,) * bits.ndim] ^= bits.dtype.type(1)


def set_exponent(bits: NDArray[Any]) -> None:
    """Of a float32 element: far from what it was, and no bigger than the others can bear."""
    at = (0,) * bits.ndim
    up = int(bits[at]) & (0xFF << 23) < 127 << 23
    bits[at] = (int(bits[at]) & ~(0xFF << 23)) | ((131 if up else 100) << 23)


def swap_rows(bits: NDArray[Any]) -> None:
    bits[[2, 3]] = bits[[3, 2]]


def inspected(source: Path, out: Path) -> Inspection:
    comparison = Comparison(str(source), out)
    rng = np.random.default_rng(0)
    return inspect(comparison, str(source), out, rng=rng, layers=True, tensors=True)


def made_by(
    breaks: Break, family: str, scheme: str, source: Path, out: Path, patch: pytest.MonkeyPatch
) -> Inspection:
    """The inspection of a model whose family has a wrong plan."""
    right = FAMILIES[family]
    wrong = dataclasses.replace(right, plan=lambda *given: breaks(right.plan(*given)))
    patch.setitem(FAMILIES, family, wrong)  # type: ignore[arg-type]
    norms = "keep" if scheme == "permutation" else "fold"
    protect(str(source), out, choices=Choices.of(scheme=scheme, norms=norms), seed=1)
    return inspected(source, out)


# --- a good model


@pytest.mark.parametrize("interface", ["embeddings", "tokens"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_good_model_is_not_accused(
    family: str, scheme: str, interface: str, dtype: str, make_model: Any, tmp_path: Path
) -> None:
    source, out = make_model(family, dtype=dtype), tmp_path / "out"
    protect(str(source), out, choices=Choices.of(scheme=scheme, interface=interface))
    found = inspected(source, out)
    assert found.accused() is None
    assert found.fault is None
    assert found.differences == ()
    assert found.limits == ()
    assert found.layers is not None
    assert len(found.layers) >= 4


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "permutation", "norms": "keep"},
        {"scheme": "orthogonal", "expand": 40},
        {"scheme": "orthogonal", "head_scales": True},
    ],
)
def test_further_choices_are_not_accused(
    options: dict[str, Any], make_model: Any, tmp_path: Path
) -> None:
    source, out = make_model("llama", shard="10KB"), tmp_path / "out"
    protect(str(source), out, choices=Choices.of(**options))
    found = inspected(source, out)
    assert found.accused() is None
    assert found.layers is not None
    assert max(one.error for one in found.layers) < 1e-4


@pytest.mark.parametrize("model", ["stories260K", "gpt2-capp"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_trained_models_are_not_accused(
    model: str, scheme: str, test_data: Path, tmp_path: Path
) -> None:
    source, out = test_data / "models" / model, tmp_path / "out"
    protect(str(source), out, choices=Choices.of(scheme=scheme))
    assert inspected(source, out).accused() is None


# --- damaged tensors, found by making them again


@pytest.mark.parametrize("change", [set_exponent, swap_rows])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("family", "folder", "name", "tensor"),
    [
        ("llama", "model", "model.layers.1.self_attn.v_proj.weight", None),
        ("llama", "model", "lm_head.weight", None),
        ("llama", "device", "rows", "model.embed_tokens.weight"),
        ("gpt2", "model", "transformer.h.0.mlp.c_fc.weight", None),
        ("gpt2", "device", "positions", "transformer.wpe.weight"),
    ],
)
def test_a_damaged_tensor_is_named_both_ways(
    family: str,
    folder: str,
    name: str,
    tensor: str | None,
    scheme: str,
    change: Change,
    make_model: Any,
    tmp_path: Path,
) -> None:
    source, out = make_model(family), tmp_path / "out"
    protect(str(source), out, choices=Choices.of(scheme=scheme))
    file = "model.safetensors" if folder == "model" else "embedding.safetensors"
    changed(out / folder / file, name, change)
    found = inspected(source, out)
    assert found.differences is not None
    assert [(one.folder, one.name) for one in found.differences] == [(folder, name)]
    assert found.fault is not None
    assert found.fault.tensors[0] == (tensor or name)


def test_the_lowest_bit_is_found_where_bits_move(make_model: Any, tmp_path: Path) -> None:
    source, out = make_model("llama"), tmp_path / "out"
    protect(str(source), out)
    name = "model.layers.0.self_attn.o_proj.weight"
    changed(out / "model" / "model.safetensors", name, flip_lowest_bit)
    found = list(differences(ModelKey.open(out, str(source)), out))
    assert [one.name for one in found] == [name]
    assert "1 of 768 elements differ, the first at [0, 0]" in found[0].what


def test_another_machines_rounding_is_no_difference(make_model: Any, tmp_path: Path) -> None:
    source, out = make_model("llama"), tmp_path / "out"
    protect(str(source), out, choices=Choices.of(scheme="orthogonal"))
    name = "model.layers.0.self_attn.o_proj.weight"
    changed(out / "model" / "model.safetensors", name, flip_lowest_bit)
    assert not list(differences(ModelKey.open(out, str(source)), out))


def test_files_of_another_key_are_named(make_model: Any, tmp_path: Path) -> None:
    source = make_model("llama")
    protect(str(source), tmp_path / "out", seed=1)
    protect(str(source), tmp_path / "other", seed=2)
    for place in ("model/config.json", "device/head.safetensors", "device/device.json"):
        shutil.copy(tmp_path / "out" / place, tmp_path / "kept")
        shutil.copy(tmp_path / "other" / place, tmp_path / "out" / place)
        found = list(
            differences(ModelKey.open(tmp_path / "out", str(source)), tmp_path / "out")
        )
        assert bool(found) == (place == "device/head.safetensors"), place
        shutil.copy(tmp_path / "kept", tmp_path / "out" / place)


def test_changed_settings_are_named(make_model: Any, tmp_path: Path) -> None:
    source, out = make_model("llama"), tmp_path / "out"
    protect(str(source), out)
    for place, option in (
        ("model/config.json", "rms_norm_eps"),
        ("device/device.json", "epoch"),
    ):
        document = json.loads((out / place).read_text())
        document[option] = 7
        (out / place).write_text(json.dumps(document))
        found = list(differences(ModelKey.open(out, str(source)), out))
        assert place.rpartition("/")[2] in [one.name for one in found]


def test_missing_and_foreign_tensors_are_named(make_model: Any, tmp_path: Path) -> None:
    source, out = make_model("llama"), tmp_path / "out"
    protect(str(source), out)
    rename_tensor(out / "model" / "model.safetensors", "model.norm.weight", "model.nxrm.weight")
    found = list(differences(ModelKey.open(out, str(source)), out))
    assert [(one.name, one.what) for one in found] == [
        ("model.norm.weight", "missing"),
        ("model.nxrm.weight", "no tensor of this model"),
    ]


def rename_tensor(file: Path, old: str, new: str) -> None:
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = data[8 : 8 + length].replace(old.encode(), new.encode())
    file.write_bytes(data[:8] + header + data[8 + length :])


# --- wrong plans, which make the same wrong tensor twice: found by running both

LAYER = "model.layers.0."
WRONG_LLAMA: dict[str, tuple[Break, str]] = {
    "embedding": (unmoved("embed_tokens", 1), "model.embed_tokens.weight"),
    "values, read": (unmoved("v_proj", 1), LAYER + "self_attn.v_proj.weight"),
    "output, written": (unmoved("o_proj", 0), LAYER + "self_attn.o_proj.weight"),
    "gate": (alone("gate"), LAYER + "mlp.gate_proj.weight"),
    "up, written": (unmoved("up_proj", 0), LAYER + "mlp.up_proj.weight"),
    "down, written": (unmoved("down_proj", 0), LAYER + "mlp.down_proj.weight"),
    "down, read": (unmoved("down_proj", 1), LAYER + "mlp.down_proj.weight"),
}
BLOCK = "transformer.h.0."
WRONG_GPT2: dict[str, tuple[Break, str]] = {
    "tokens": (unmoved("wte", 1), "transformer.wte.weight"),
    "positions": (unmoved("wpe", 1), "transformer.wpe.weight"),
    "heads, read": (unmoved("c_attn.weight", 0), BLOCK + "attn.c_attn.weight"),
    "one permutation": (other_spaces(over_all_heads), BLOCK + "attn.c_attn.weight"),
    "neurons": (unmoved("c_fc.weight", 1), BLOCK + "mlp.c_fc.weight"),
    "projection, read": (unmoved("mlp.c_proj.weight", 0), BLOCK + "mlp.c_proj.weight"),
    "projection, written": (unmoved("mlp.c_proj.weight", 1), BLOCK + "mlp.c_proj.weight"),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("wrong", WRONG_LLAMA)
def test_a_wrong_row_of_llama_is_named(
    wrong: str, scheme: str, make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks, tensor = WRONG_LLAMA[wrong]
    source = make_model("llama")
    found = made_by(breaks, "llama", scheme, source, tmp_path / "out", monkeypatch)
    assert found.differences == ()
    assert found.fault is not None
    assert found.fault.tensors[0] == tensor


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("wrong", WRONG_GPT2)
def test_a_wrong_row_of_gpt2_is_named(
    wrong: str, scheme: str, make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks, tensor = WRONG_GPT2[wrong]
    source = make_model("gpt2")
    found = made_by(breaks, "gpt2", scheme, source, tmp_path / "out", monkeypatch)
    assert found.differences == ()
    assert found.fault is not None
    assert found.fault.tensors[0] == tensor


@pytest.mark.parametrize(
    ("family", "words", "tensor"),
    [
        ("llama", "norm.weight", "model.layers.0.input_layernorm.weight"),
        ("llama", "model.norm", "model.norm.weight"),
        ("gpt2", "ln_2.bias", "transformer.h.0.ln_2.weight"),
    ],
)
def test_a_norm_that_stays_is_named(
    family: str,
    words: str,
    tensor: str,
    make_model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, out = make_model(family), tmp_path / "out"
    found = made_by(unmoved(words, 0), family, "permutation", source, out, monkeypatch)
    assert found.fault is not None
    assert found.fault.tensors[0] == tensor


def test_keys_that_attention_does_not_pass_name_the_attention(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries and keys under different permutations: each projection is right by itself."""

    def breaks(plan: Plan) -> Plan:
        query = permuted("another", plan.spaces["query.1"].size)
        return dataclasses.replace(plan, spaces={**plan.spaces, "query.1": query})

    found = made_by(
        breaks, "llama", "permutation", make_model("llama"), tmp_path / "out", monkeypatch
    )
    assert found.fault is not None
    assert found.fault.tensors[0] == "model.layers.1.self_attn.q_proj.weight"
    assert "model.layers.1.self_attn.k_proj.weight" in found.fault.tensors
    assert "do not go together" in found.fault.why


# --- the command


def test_layers_and_tensors_on_demand(make_model: Any, tmp_path: Path) -> None:
    source, out = make_model("llama"), tmp_path / "out"
    protect(str(source), out)
    plain = json.loads(run("verify", source, out, "--samples", "9", "--json").stdout)
    assert "layers" not in plain
    said = run("verify", source, out, "--samples", "9", "--layers", "--tensors").stdout
    assert "model.layers.1 " in said
    assert "No tensor is off" in said
    assert "Every tensor is what the key makes" in said
    words = ("--samples", "9", "--layers", "--json")
    found = json.loads(run("verify", source, out, *words).stdout)
    assert [one["layer"] for one in found["layers"]] == [
        "model.embed_tokens",
        "model.layers.0",
        "model.layers.1",
        "model.norm",
        "lm_head",
    ]
    assert found["fault"] is None
    assert found["differences"] is None
    assert found["top1_agreement"] == 1.0


def test_a_failure_names_the_tensor(make_model: Any, tmp_path: Path) -> None:
    source, out = make_model("llama"), tmp_path / "out"
    protect(str(source), out)
    name = "model.layers.1.mlp.up_proj.weight"
    changed(out / "model" / "model.safetensors", name, swap_rows)
    result = run("verify", source, out, "--samples", "200", "--json")
    assert isinstance(result.exception, CheckpointError)
    assert name in str(result.exception)
    document = json.loads(result.stdout)
    assert document["max_relative_error"] > 1e-3
    assert document["differences"][0]["name"] == name
    assert document["fault"]["tensors"][0] == name


def test_a_change_too_small_for_answers_is_found_on_demand(
    make_model: Any, tmp_path: Path
) -> None:
    source, out = make_model("llama"), tmp_path / "out"
    protect(str(source), out)
    name = "model.layers.1.self_attn.o_proj.weight"
    changed(out / "model" / "model.safetensors", name, flip_lowest_bit)
    assert run("verify", source, out, "--samples", "20").exit_code == 0
    result = run("verify", source, out, "--samples", "20", "--tensors")
    assert isinstance(result.exception, CheckpointError)
    assert name in str(result.exception)


def test_nan_is_a_failure(make_model: Any, tmp_path: Path) -> None:
    source, out = make_model("llama"), tmp_path / "out"
    protect(str(source), out)
    changed(
        out / "model" / "model.safetensors",
        "model.norm.weight",
        lambda bits: bits.fill(0x7FC00000),
    )
    result = run("verify", source, out, "--samples", "20", "--json")
    assert isinstance(result.exception, CheckpointError)
    document = json.loads(result.stdout)
    assert document["max_relative_error"] == LARGEST
    assert document["differences"][0]["name"] == "model.norm.weight"
    assert document["fault"]["tensors"][0] == "model.norm.weight"


def test_without_secrets_answers_are_compared_and_the_rest_is_said(
    make_model: Any, tmp_path: Path
) -> None:
    source, out = make_model("llama"), tmp_path / "out"
    protect(str(source), out)
    shutil.rmtree(out / "secrets")
    result = run("verify", source, out, "--samples", "20", "--layers", "--tensors", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["top1_agreement"] == 1.0
    assert document["layers"] is None
    assert "master.key is gone" in document["limits"][0]
    changed(out / "model" / "model.safetensors", "lm_head.weight", swap_rows)
    result = run("verify", source, out, "--samples", "200")
    assert isinstance(result.exception, CheckpointError)
    assert "Not done" in result.stdout


def test_given_texts_are_compared(make_model: Any, tmp_path: Path) -> None:
    source, out, texts = make_model("llama"), tmp_path / "out", tmp_path / "texts"
    protect(str(source), out)
    texts.write_text("w3 w4 w5\n\n" + "w6 " * 200 + "\n", encoding="utf-8")
    words = ("--samples", "64", "--texts", texts, "--json")
    found = json.loads(run("verify", source, out, *words).stdout)
    assert found["samples"] == 3 + 64 + 64  # the second text is cut to the model's positions
    assert found["top1_agreement"] == 1.0


def test_a_rare_token_is_compared_if_given(make_model: Any, tmp_path: Path) -> None:
    """A damage that random texts of this seed do not meet."""
    source, out, texts = make_model("llama"), tmp_path / "out", tmp_path / "texts"
    protect(str(source), out)
    ids = np.random.default_rng(0).integers(0, 53, (1, 8))
    token = next(i for i in range(53) if i not in ids)

    def spoil(bits: NDArray[Any]) -> None:
        bits[token] = bits[token][::-1].copy()

    changed(out / "device" / "embedding.safetensors", "rows", spoil)
    comparison = Comparison(str(source), out)
    without = comparison.agreement(8, rng=np.random.default_rng(0))
    assert without.max_relative_error < 1e-5
    given = comparison.agreement(8, rng=np.random.default_rng(0), texts=[f"w{token}"])
    assert given.samples == 9
    assert given.max_relative_error > 1e-2
    with pytest.raises(RequestError, match="text 2 has no tokens"):
        comparison.agreement(8, rng=np.random.default_rng(0), texts=["w1", " "])
    texts.write_bytes(b"\xff\xfe\xff")
    for path in (texts, tmp_path / "absent", tmp_path):
        result = run("verify", source, out, "--texts", path)
        assert isinstance(result.exception, SettingsError), path
    texts.write_text("\n\n", encoding="utf-8")
    assert isinstance(run("verify", source, out, "--texts", texts).exception, TripartyError)


# --- building blocks


def test_what_is_keyed_can_be_undone() -> None:
    keys = Keys.of_seed(3)
    rng = np.random.default_rng(3)
    dense = Dense(matrix := rng.standard_normal((4, 4)), np.linalg.inv(matrix))
    moved = Monomial(keys.permutation("a", 3), np.array([2.0, -1.0, 0.5]))
    wide = Dense.rotation(np.linalg.qr(rng.standard_normal((7, 5)))[0].T)
    both: Transform = DirectSum(((3, dense), (0, moved)))
    for transform in (dense, moved, wide, both):
        values = rng.standard_normal((2, 3, transform.size))
        keyed = transform.apply(values, 2)
        assert keyed.shape[-1] == transform.new_size
        assert np.abs(undone(transform, keyed) - values).max() < 1e-12
    assert Scheme.ORTHOGONAL in Scheme


def test_relative_error_of_what_is_no_number() -> None:
    one = np.ones(3)
    assert relative_error(one, one) == 0.0
    assert relative_error(2 * one, one) == 0.5
    assert relative_error(0 * one, one) == 1.0
    for odd in (np.nan, np.inf):
        assert relative_error(one, np.array([1.0, odd, 1.0])) == LARGEST
