"""What a published folder may not do: bring code, lie about shapes, name files elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from triparty.cloud.serving.loading import load_model
from triparty.common.errors import CheckpointError, FileTypeError, UnsupportedModelError

CPU = torch.device("cpu")


@pytest.fixture
def folder(tiny_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the tiny llama."""
    return shutil.copytree(tiny_folders["llama"], tmp_path / "model")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, changes: dict[str, torch.Tensor | None]) -> None:
    path = folder / "model.safetensors"
    tensors: dict[str, torch.Tensor | None] = {**load_file(path), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, path, metadata={"format": "pt"})


def test_a_good_folder_loads_for_inference(folder: Path) -> None:
    model = load_model(folder, device=CPU)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model_type": "bert"}, "model_type"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config"),
        ({"dtype": "float8_e4m3fn"}, "dtype"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "rope",
        ),
    ],
)
def test_options_that_are_not_served_are_refused(
    folder: Path, changes: dict[str, Any], word: str
) -> None:
    edit_config(folder, **changes)
    with pytest.raises(UnsupportedModelError, match=word):
        load_model(folder, device=CPU)


@pytest.mark.parametrize("name", ["extra.bin", "model.pt", "weights.pkl", "modeling_x.py"])
def test_files_that_could_hold_code_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    with pytest.raises(FileTypeError, match=name):
        load_model(folder, device=CPU)


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    with pytest.raises(UnsupportedModelError, match="adapter"):
        load_model(folder, device=CPU)


def test_keys_that_the_stock_class_does_not_declare_change_nothing(folder: Path) -> None:
    edit_config(folder, transformers_weights="/etc/passwd", output_hidden_states=True, _x=1)
    config = load_model(folder, device=CPU).config
    assert not hasattr(config, "transformers_weights")
    assert not config.output_hidden_states


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 0},
        {"num_attention_heads": 5},
        {"hidden_act": "exec"},
        {"num_hidden_layers": 10**9},
        {"hidden_size": "wide"},
        {"vocab_size": -1},
    ],
)
def test_a_senseless_configuration_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError):
        load_model(folder, device=CPU)


def test_a_width_that_the_weights_do_not_have_is_refused_before_allocating(
    folder: Path,
) -> None:
    edit_config(folder, intermediate_size=10**9)
    with pytest.raises(CheckpointError, match="has shape"):
        load_model(folder, device=CPU)


def test_a_missing_tensor_is_refused(folder: Path) -> None:
    edit_weights(folder, {"model.norm.weight": None})
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
        load_model(folder, device=CPU)


def test_the_input_embedding_may_be_missing(folder: Path) -> None:
    edit_weights(folder, {"model.embed_tokens.weight": None})
    load_model(folder, device=CPU)


@pytest.mark.parametrize("document", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_broken_configuration_file_is_refused(folder: Path, document: bytes) -> None:
    (folder / "config.json").write_bytes(document)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(folder, device=CPU)


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(folder, device=CPU)


def test_shards_load_and_may_not_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    half = len(tensors) // 2
    shards = {"a.safetensors": list(tensors)[:half], "b.safetensors": list(tensors)[half:]}
    weight_map: dict[str, str] = {}
    for shard, names in shards.items():
        chosen = {name: tensors[name] for name in names}
        save_file(chosen, folder / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    load_model(folder, device=CPU)

    (folder / "a.safetensors").rename(tmp_path / "a.safetensors")
    moved = {n: s.replace("a.", "../a.") for n, s in weight_map.items()}
    index.write_text(json.dumps({"metadata": {}, "weight_map": moved}))
    with pytest.raises(CheckpointError, match="not a file beside it"):
        load_model(folder, device=CPU)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json"):
        load_model(folder, device=CPU)


def test_half_precision_is_kept(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        dtype="bfloat16",
    )
    torch.nn.Module.to(stock := LlamaForCausalLM(config), torch.bfloat16)
    stock.save_pretrained(tmp_path)
    model = load_model(tmp_path, device=CPU)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
