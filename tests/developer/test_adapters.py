"""LoRA adapters under the key of their model.

Law: the protected model with the protected adapter answers what the original answers with the
original adapter, undone; merged by hand, and in stock `peft`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from math import sqrt
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import typer
from family_law import in_float64
from numpy.typing import NDArray
from typer.testing import CliRunner

from triparty.common.errors import (
    CheckpointError,
    FileTypeError,
    SettingsError,
    StateError,
    UnknownTensorError,
    UnsupportedModelError,
)
from triparty.common.keying import Bundle
from triparty.common.tensorfile import TensorFile, as_float64
from triparty.developer.adapters import ProtectedAdapter, protect_adapter
from triparty.developer.answers import task_of
from triparty.developer.cli_models import add_commands
from triparty.developer.protect import FAMILIES, Choices, protect
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.weights import Weights
from triparty.developer.stock import load_model

pytestmark = pytest.mark.filterwarnings(  # of peft, about transformers
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
EXACT = 1e-10
BASE = "base_model.model."
CHOICES: Mapping[str, dict[str, Any]] = {
    "permutation": {"scheme": "permutation"},
    "permutation, norms kept": {"scheme": "permutation", "norms": "keep"},
    "permutation, tokens": {"scheme": "permutation", "interface": "tokens"},
    "orthogonal": {"scheme": "orthogonal"},
    "permutation, scaled head": {"scheme": "permutation", "head_scales": True},
    "orthogonal, scaled head": {"scheme": "orthogonal", "head_scales": True},
}
MODULES = {
    "llama": (
        *(f"self_attn.{kind}_proj" for kind in "qkvo"),
        *(f"mlp.{kind}_proj" for kind in ("gate", "up", "down")),
    ),
    "gpt2": ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
}
AT = {"llama": "model.layers.{}.", "gpt2": "transformer.h.{}."}


def modules(family: str) -> list[str]:
    """Every linear module of a model with two layers, the head included."""
    inner = [AT[family].format(n) + module for n in range(2) for module in MODULES[family]]
    return [*inner, "lm_head"]


def shape(source: Path, module: str, family: str) -> tuple[int, int]:
    """What a module reads and writes."""
    entries = TensorFile.open(source / "model.safetensors").entries
    tied = "transformer.wte" if family == "gpt2" else "model.embed_tokens"
    entry = entries.get(f"{module}.weight") or entries[f"{tied}.weight"]
    transposed = family == "gpt2" and module != "lm_head"
    out, into = entry.shape[::-1] if transposed else entry.shape
    return into, out


def write_adapter(folder: Path, tensors: Mapping[str, NDArray[Any]], **options: Any) -> Path:
    """An adapter's folder."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    save_file(dict(tensors), folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "/home/me/secret",
        "r": 3,
        "lora_alpha": 5,
        "bias": "none",
        "target_modules": ["a"],
        **options,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def random_adapter(
    source: Path, family: str, folder: Path, *, names: list[str] | None = None, **options: Any
) -> Path:
    """An adapter of every linear module, as large as the weights themselves."""
    rng, tensors = np.random.default_rng(11), {}
    for module in modules(family) if names is None else names:
        into, out = shape(source, module, family)
        rank = 5 if module.endswith("0.mlp.up_proj") else 3
        tensors[f"{BASE}{module}.lora_A.weight"] = 0.3 * rng.standard_normal((rank, into))
        tensors[f"{BASE}{module}.lora_B.weight"] = 0.3 * rng.standard_normal((out, rank))
        if options.get("lora_bias"):
            tensors[f"{BASE}{module}.lora_B.bias"] = rng.standard_normal(out)
    patterns = {"rank_pattern": {"model.layers.0.mlp.up_proj": 5}} if family == "llama" else {}
    options = {"fan_in_fan_out": family == "gpt2", **patterns, **options}
    return write_adapter(folder, tensors, **options)


def values_of(folder: Path) -> dict[str, NDArray[np.float64]]:
    file = TensorFile.open(folder / "adapter_model.safetensors")
    return {name: as_float64(file.bits(name), e.dtype) for name, e in file.entries.items()}


def merged(model: Any, adapter: Path) -> Any:
    """A model with s B A added to its weights, and s times B's bias to its biases."""
    import torch

    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = values_of(adapter)
    for name, down in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        path = name.removesuffix(".lora_A.weight")
        layer = model.get_submodule(path.removeprefix(BASE))
        rank = len(down)
        scale = config["lora_alpha"] / (sqrt(rank) if config.get("use_rslora") else rank)
        change = torch.from_numpy(scale * tensors[f"{path}.lora_B.weight"] @ down)
        transposed = type(layer).__name__ == "Conv1D"
        change = change.T if transposed else change
        # A new parameter: a head that is tied to the embedding leaves that as it is.
        layer.weight = torch.nn.Parameter(layer.weight + change.to(layer.weight.dtype))
        bias = tensors.get(f"{path}.lora_B.bias")
        if bias is not None:
            added = torch.from_numpy(scale * bias).to(layer.weight.dtype)
            layer.bias = torch.nn.Parameter(added + (0 if layer.bias is None else layer.bias))
    return model


def with_peft(model: Any, adapter: Path) -> Any:
    """A model with an adapter, as stock `peft` loads it."""
    peft = pytest.importorskip("peft", reason="peft is absent: pip install -e '.[dev]'")
    loaded = peft.PeftModel.from_pretrained(model, adapter)
    return loaded.train(False)


def disagreement(
    source: Path,
    out: Path,
    plain: Path,
    keyed: Path,
    using: Callable[[Any, Path], Any] = merged,
) -> float:
    """max|a - b| / max|a| of the answers of both models with their adapters."""
    bundle, task = Bundle.open(out / "device"), task_of("causal-lm")
    original = using(load_model(source), plain)
    protected = using(load_model(out / "model"), keyed)
    sample = task.sample(bundle.info, 40, np.random.default_rng(5))
    with in_float64():
        expected = task.original(original, sample)
        found = task.protected(protected, bundle, sample)
    alone = task.original(load_model(source), sample)
    assert np.abs(expected - alone).max() > 0.1 * np.abs(alone).max()  # it changes something
    return float(np.abs(expected - found).max() / np.abs(expected).max())


def made(
    make_model: Any, family: str, choice: str, folder: Path, **options: Any
) -> tuple[Path, Path, Path, ProtectedAdapter]:
    """A source, its protected form, an adapter and its protected form."""
    source, out = make_model(family, dtype="float64"), folder / "out"
    protect(str(source), out, choices=Choices.of(**CHOICES[choice]))
    adapter = random_adapter(source, family, folder / "tuned", **options)
    return source, out, adapter, protect_adapter(adapter, out)


# --- the law


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_protected_adapter_adds_what_the_original_does(
    family: str, choice: str, make_model: Any, tmp_path: Path
) -> None:
    source, out, adapter, found = made(make_model, family, choice, tmp_path)
    assert found.folder == out / "adapters" / "tuned"
    assert found.modules == tuple(sorted(modules(family)))
    folded = family == "gpt2" and "kept" not in choice
    assert found.biased == folded
    assert disagreement(source, out, adapter, found.folder) <= EXACT


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed:UserWarning")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to True:UserWarning")
def test_stock_peft_loads_it(family: str, choice: str, make_model: Any, tmp_path: Path) -> None:
    source, out, adapter, found = made(make_model, family, choice, tmp_path)
    plain = replace_targets(adapter, modules(family))
    assert disagreement(source, out, plain, found.folder, with_peft) <= EXACT


def replace_targets(adapter: Path, names: list[str]) -> Path:
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["target_modules"] = names
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    return adapter


@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
@pytest.mark.parametrize(
    ("family", "targets"),
    [("llama", "all-linear"), ("llama", ["q_proj", "lm_head"]), ("gpt2", ["c_attn"])],
)
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")
@pytest.mark.parametrize("further", [{}, {"use_rslora": True}, {"alpha_pattern": {"0..*": 3}}])
def test_what_peft_saves_is_read(
    family: str,
    targets: Any,
    scheme: str,
    further: dict[str, Any],
    make_model: Any,
    tmp_path: Path,
) -> None:
    peft = pytest.importorskip("peft", reason="peft is absent: pip install -e '.[dev]'")
    import torch

    source, out = make_model(family, dtype="float64"), tmp_path / "out"
    protect(str(source), out, choices=Choices.of(scheme=scheme))
    options = {"fan_in_fan_out": True} if family == "gpt2" else {}
    config = peft.LoraConfig(
        r=4,
        lora_alpha=24,
        target_modules=targets,
        task_type="CAUSAL_LM",
        init_lora_weights=False,
        **options,
        **further,
    )
    torch.manual_seed(3)
    tuned = peft.get_peft_model(load_model(source), config)
    tuned.save_pretrained(tmp_path / "saved")
    found = protect_adapter(tmp_path / "saved", out, name="mine")
    document = json.loads((found.folder / "adapter_config.json").read_text())
    assert str(source) not in json.dumps(document)
    assert disagreement(source, out, tmp_path / "saved", found.folder, with_peft) <= EXACT


def test_biases_of_an_adapter_are_keyed(make_model: Any, tmp_path: Path) -> None:
    names = [name for name in modules("gpt2") if name != "lm_head"]
    for choice in ("permutation, norms kept", "orthogonal"):
        folder = tmp_path / choice
        source, out, adapter, found = made(
            make_model, "gpt2", choice, folder, lora_bias=True, names=names
        )
        assert found.biased
        assert disagreement(source, out, adapter, found.folder) <= EXACT


def test_a_factor_that_the_plan_gives_a_layer_is_given_to_its_adapter(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stock class scales and the protected one does not, adapter included."""
    source = make_model("gpt2", dtype="float64")
    adapter = random_adapter(source, "gpt2", tmp_path / "tuned")
    family, found = FAMILIES["gpt2"], []
    for factor in (1.0, 3.0):

        def scaled(*given: Any, factor: float = factor) -> Plan:
            plan = family.plan(*given)
            rules = tuple(
                dataclasses.replace(rule, factor=factor) if "c_fc" in rule.pattern else rule
                for rule in plan.rules
            )
            return dataclasses.replace(plan, rules=rules)

        wrong = dataclasses.replace(family, plan=scaled)
        monkeypatch.setitem(FAMILIES, "gpt2", wrong)  # type: ignore[arg-type]
        out = tmp_path / str(factor)
        protect(str(source), out, seed=1)
        found.append(values_of(protect_adapter(adapter, out).folder))
    at = f"{BASE}transformer.h.0.mlp.c_fc.lora_"
    for name, times in (("A.weight", 1), ("B.weight", 3), ("B.bias", 3)):
        assert np.abs(found[1][at + name] - times * found[0][at + name]).max() < 1e-12, name


def test_nothing_of_the_adapters_origin_is_written(make_model: Any, tmp_path: Path) -> None:
    _, _, adapter, found = made(make_model, "llama", "permutation", tmp_path)
    assert "/home/me/secret" in (adapter / "adapter_config.json").read_text()
    assert "secret" not in (found.folder / "adapter_config.json").read_text()
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_an_expanded_residual(make_model: Any, tmp_path: Path) -> None:
    source, out = make_model("llama", dtype="float64"), tmp_path / "out"
    protect(str(source), out, choices=Choices.of(scheme="orthogonal", expand=40))
    adapter = random_adapter(source, "llama", tmp_path / "tuned")
    found = protect_adapter(adapter, out)
    assert disagreement(source, out, adapter, found.folder) <= EXACT


def test_names_of_the_bare_model_are_known(make_model: Any, tmp_path: Path) -> None:
    _, out, adapter, found = made(make_model, "llama", "permutation", tmp_path)
    inner = {
        name.replace(f"{BASE}model.", BASE): values
        for name, values in values_of(adapter).items()
        if "lm_head" not in name
    }
    bare = write_adapter(tmp_path / "bare", inner, rank_pattern={"layers.0.mlp.up_proj": 5})
    other = protect_adapter(bare, out)
    assert other.modules == tuple(name for name in found.modules if name != "lm_head")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtypes_stay(dtype: str, make_model: Any, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    source, out = make_model("llama", dtype=dtype), tmp_path / "out"
    protect(str(source), out, choices=Choices.of(scheme="orthogonal"))
    adapter = random_adapter(source, "llama", tmp_path / "tuned")
    file = adapter / "adapter_model.safetensors"
    kind = getattr(torch, dtype)
    save_file({name: t.to(kind) for name, t in load_file(file).items()}, file)
    found = protect_adapter(adapter, out)
    after = load_file(found.folder / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in after.values()} == {kind}


# --- keys


def test_the_rank_is_keyed_and_follows_from_the_adapter(
    make_model: Any, tmp_path: Path
) -> None:
    """The same adapter twice is the same; another one has other keys between A and B."""
    _, out, adapter, first = made(make_model, "llama", "orthogonal", tmp_path)
    again = protect_adapter(adapter, out, name="again")
    plain, one, two = values_of(adapter), values_of(first.folder), values_of(again.folder)
    assert all((one[name] == two[name]).all() for name in one)
    name = f"{BASE}model.layers.0.self_attn.o_proj.lora_A.weight"
    # Rows are mixed: their Gram matrix is not that of the original's, in any order.
    before, after = (np.linalg.norm(tensors[name], axis=1) for tensors in (plain, one))
    assert np.abs(np.sort(before) - np.sort(after)).min() > 1e-6


def test_the_digest_of_an_adapter_derives_its_keys(make_model: Any, tmp_path: Path) -> None:
    _, out, adapter, first = made(make_model, "llama", "orthogonal", tmp_path)
    tensors = values_of(adapter)
    other_name = f"{BASE}model.layers.1.mlp.down_proj.lora_A.weight"
    tensors[other_name] = tensors[other_name] + 1.0
    other = write_adapter(tmp_path / "other", tensors)
    second = protect_adapter(other, out)
    name = f"{BASE}model.layers.0.self_attn.o_proj.lora_A.weight"
    assert (values_of(first.folder)[name] != values_of(second.folder)[name]).any()


# --- negative controls


@pytest.mark.parametrize("choice", ["permutation", "orthogonal"])
def test_an_unkeyed_adapter_breaks_the_law(
    choice: str, make_model: Any, tmp_path: Path
) -> None:
    source, out, adapter, _ = made(make_model, "llama", choice, tmp_path)
    assert disagreement(source, out, adapter, adapter) > 1e-2


def test_an_adapter_without_the_folded_weights_breaks_the_law(
    make_model: Any, tmp_path: Path
) -> None:
    source, out, adapter, _ = made(make_model, "llama", "permutation", tmp_path)
    with patch.object(Weights, "fold_scale", lambda *_: None):
        found = protect_adapter(adapter, out, name="wrong")
    assert disagreement(source, out, adapter, found.folder) > 1e-2


def test_an_adapter_without_the_folded_biases_breaks_the_law(
    make_model: Any, tmp_path: Path
) -> None:
    source, out, adapter, _ = made(make_model, "gpt2", "permutation", tmp_path)
    with patch.object(Weights, "shift", lambda *_: None):
        found = protect_adapter(adapter, out, name="wrong")
    assert not found.biased
    assert disagreement(source, out, adapter, found.folder) > 1e-2


# --- what is refused


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_dora": True}, "use_dora.*merge_and_unload"),
        ({"bias": "all"}, "'bias' is 'all'.*merge"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save.*merge"),
        ({"peft_type": "LOHA"}, "peft_type"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"use_qalora": True}, "use_qalora"),
        ({"something_new": 3}, "something_new"),
        ({"init_lora_weights": "pissa"}, "pissa.*path_initial_model"),
        ({"lora_alpha": "x"}, "lora_alpha"),
        ({"r": 0}, "'r'"),
        ({"rank_pattern": {"a": "b"}}, "rank_pattern"),
    ],
)
def test_more_than_low_ranks_is_refused(
    options: dict[str, Any], named: str, make_model: Any, tmp_path: Path
) -> None:
    source, out = make_model("llama"), tmp_path / "out"
    protect(str(source), out)
    adapter = random_adapter(source, "llama", tmp_path / "tuned", **options)
    with pytest.raises(UnsupportedModelError, match=named):
        protect_adapter(adapter, out)
    assert not (out / "adapters" / "tuned").exists()


@pytest.mark.parametrize(
    ("tensors", "error", "named"),
    [
        ({"model.embed_tokens.lora_embedding_A": (3, 53)}, UnsupportedModelError, "embedding"),
        (
            {"model.embed_tokens.lora_A.weight": (3, 53)}
            | {"model.embed_tokens.lora_B.weight": (24, 3)},
            UnsupportedModelError,
            "no linear layer",
        ),
        (
            {"model.norm.lora_A.weight": (3, 24), "model.norm.lora_B.weight": (24, 3)},
            UnsupportedModelError,
            "a norm",
        ),
        (
            {"lm_head.lora_A.weight": (3, 24), "lm_head.lora_B.weight": (54, 3)},
            CheckpointError,
            "writes 54 numbers, the model's 24 and 53: was it trained on",
        ),
        (
            {"lm_head.lora_A.weight": (3, 24), "lm_head.lora_B.weight": (53, 2)},
            CheckpointError,
            r"expected \(r, in\) and \(out, r\)",
        ),
        ({"lm_head.lora_A.weight": (3, 24)}, CheckpointError, "lacks lora_B.weight"),
        ({"lm_head.lora_magnitude_vector": (3,)}, UnsupportedModelError, "DoRA"),
        ({"lm_head.weight": (53, 24)}, UnsupportedModelError, "not of a LoRA"),
        (
            {"model.layers.9.mlp.up_proj.lora_A.weight": (3, 24)}
            | {"model.layers.9.mlp.up_proj.lora_B.weight": (20, 3)},
            UnknownTensorError,
            "no module of this llama model: was it trained on",
        ),
        (
            {"lm_head.lora_A.weight": (3, 24), "lm_head.lora_B.weight": (53, 3)}
            | {"lm_head.base_layer.weight": (53, 24)},
            UnsupportedModelError,
            "brings 'lm_head' itself along",
        ),
        ({"lm_head.base_layer.weight": (53, 24)}, CheckpointError, "lacks lora_A.weight"),
        ({}, CheckpointError, "holds no tensor"),
    ],
)
def test_an_adapter_of_something_else_is_refused(
    tensors: dict[str, tuple[int, ...]],
    error: type[Exception],
    named: str,
    make_model: Any,
    tmp_path: Path,
) -> None:
    source, out = make_model("llama"), tmp_path / "out"
    protect(str(source), out)
    arrays = {f"{BASE}{name}": np.ones(size) for name, size in tensors.items()}
    adapter = write_adapter(tmp_path / "tuned", arrays)
    with pytest.raises(error, match=named):
        protect_adapter(adapter, out)
    assert not (out / "adapters" / "tuned").exists()


def test_folders_and_names(make_model: Any, tmp_path: Path) -> None:
    source, out, adapter, _ = made(make_model, "llama", "permutation", tmp_path)
    with pytest.raises(StateError, match="exists already"):
        protect_adapter(adapter, out)
    for name in ("../x", "a/b", ".", "/x"):
        with pytest.raises(SettingsError, match="name of an adapter"):
            protect_adapter(adapter, out, name=name)
    moved = source.rename(tmp_path / "moved")
    with pytest.raises(CheckpointError):
        protect_adapter(adapter, out, name="other")
    protect_adapter(adapter, out, name="other", source=str(moved))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(FileTypeError, match="pickle"):
        protect_adapter(adapter, out, name="pickled", source=str(moved))
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match="is no adapter"):
        protect_adapter(adapter, out, name="empty", source=str(moved))
    shutil.rmtree(out / "secrets")
    with pytest.raises(StateError, match="is gone"):
        protect_adapter(random_adapter(moved, "llama", tmp_path / "new"), out)


def test_the_command(make_model: Any, tmp_path: Path) -> None:
    source, out = make_model("gpt2"), tmp_path / "out"
    protect(str(source), out)
    adapter = random_adapter(source, "gpt2", tmp_path / "tuned")
    app = typer.Typer()
    add_commands(app)
    words = ["protect-adapter", str(adapter), str(out), "--name", "support", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["adapter"] == str(out / "adapters" / "support")
    assert len(document["modules"]) == 9
    assert document["lora_bias"] is True
    words = ["protect-adapter", str(adapter), str(out)]
    assert "rank 3 on 9 modules" in CliRunner().invoke(app, words).stdout


def test_an_adapter_of_a_head_that_devices_have_is_refused(
    make_model: Any, tmp_path: Path
) -> None:
    source = make_model("llama", dtype="float64")
    protect(str(source), tmp_path / "out", choices=Choices.of(head="device"))
    head = random_adapter(source, "llama", tmp_path / "head", names=["lm_head"])
    with pytest.raises(UnsupportedModelError, match="devices have"):
        protect_adapter(head, tmp_path / "out")


@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
def test_adapters_of_layers_follow_a_model_whose_head_is_on_the_device(
    scheme: str, make_model: Any, tmp_path: Path
) -> None:
    source, out = make_model("llama", dtype="float64"), tmp_path / "out"
    protect(str(source), out, choices=Choices.of(head="device", scheme=scheme))
    names = modules("llama")[:-1]
    adapter = random_adapter(source, "llama", tmp_path / "tuned", names=names)
    found = protect_adapter(adapter, out)
    assert disagreement(source, out, adapter, found.folder) <= EXACT
