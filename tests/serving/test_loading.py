"""What a published folder may not do: bring code, lie about shapes, name files elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, PreTrainedModel

from triparty.cloud.serving.families import FAMILIES, experts_implementation
from triparty.cloud.serving.loading import load_model
from triparty.cloud.serving.placement import Placement
from triparty.common.errors import CheckpointError, FileTypeError, UnsupportedModelError

CPU = Placement("cpu")


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


def test_models_are_made_one_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers replaces its own methods for as long as it makes one."""
    inside, most = 0, 0
    real, guard = LlamaForCausalLM.from_pretrained, threading.Lock()
    before = PreTrainedModel.tie_weights

    def slowly(*args: Any, **options: Any) -> Any:
        nonlocal inside, most
        with guard:
            inside += 1
            most = max(most, inside)
        time.sleep(0.05)
        try:
            return real(*args, **options)
        finally:
            with guard:
                inside -= 1

    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", slowly)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: load_model(folder, placement=CPU), range(4)))
    assert most == 1
    assert PreTrainedModel.tie_weights is before


def test_a_good_folder_loads_for_inference(folder: Path) -> None:
    model = load_model(folder, placement=CPU)
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
        load_model(folder, placement=CPU)


@pytest.mark.parametrize(
    ("family", "changes", "word"),
    [
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        (
            "gemma3_text",
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "dynamic", "factor": 2.0},
                    "sliding_attention": {"rope_type": "default"},
                }
            },
            "dynamic",
        ),
        ("qwen2", {"layer_types": ["chunked_attention"] * 3}, "chunked_attention"),
        ("mixtral", {"per_layer_config": {"0": {"sliding_window": 1}}}, "per_layer_config"),
    ],
)
def test_options_of_a_family_that_are_not_served_are_refused(
    tiny_folders: dict[str, Path],
    copy_with: Callable[..., Path],
    family: str,
    changes: dict[str, Any],
    word: str,
) -> None:
    with pytest.raises(UnsupportedModelError, match=word):
        load_model(copy_with(tiny_folders[family], **changes), placement=CPU)


@pytest.mark.parametrize(
    ("family", "changes", "word"),
    [
        ("mistral", {"sliding_window": 0}, "sliding_window"),
        ("gemma2", {"sliding_window": -3}, "sliding_window"),
        ("qwen2", {"use_sliding_window": False}, "no sliding_window"),
        ("qwen3", {"layer_types": ["full_attention"]}, "layer_types"),
        ("gemma2", {"attn_logit_softcapping": 0.0}, "attn_logit_softcapping"),
        ("gemma2", {"final_logit_softcapping": -1.0}, "final_logit_softcapping"),
        ("gemma3_text", {"final_logit_softcapping": float("nan")}, "final_logit_softcapping"),
        ("gemma2", {"num_hidden_layers": 10**9, "layer_types": None}, "layers"),
        ("llama", {"pad_token_id": 10**6}, "not valid"),
        ("deepseek_v3", {"n_group": 3}, "does not run"),
        ("mixtral", {"num_experts_per_tok": 6}, "does not run"),
        ("mistral", {"num_attention_heads": "4"}, "not valid"),
    ],
)
def test_a_senseless_option_of_a_family_is_refused(
    tiny_folders: dict[str, Path],
    copy_with: Callable[..., Path],
    family: str,
    changes: dict[str, Any],
    word: str,
) -> None:
    with pytest.raises(CheckpointError, match=word):
        load_model(copy_with(tiny_folders[family], **changes), placement=CPU)


def test_older_keys_of_gemma3_are_read(
    tiny_folders: dict[str, Path], copy_with: Callable[..., Path]
) -> None:
    folder = copy_with(
        tiny_folders["gemma3_text"],
        layer_types=None,
        _sliding_window_pattern=None,
        rope_parameters=None,
        sliding_window_pattern=2,
        rope_theta=7e5,
        rope_local_base_freq=2e4,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
    )
    config = load_model(folder, placement=CPU).config
    assert config.layer_types == ["sliding_attention", "full_attention", "sliding_attention"]
    full, sliding = (
        config.rope_parameters[f"{kind}_attention"] for kind in ("full", "sliding")
    )
    assert (full["rope_theta"], full["rope_type"], full["factor"]) == (7e5, "linear", 8.0)
    assert (sliding["rope_theta"], sliding["rope_type"]) == (2e4, "default")


@pytest.mark.parametrize(
    ("dtype", "changes", "implementation"),
    [
        (torch.bfloat16, {}, "grouped_mm"),
        (torch.float16, {}, "grouped_mm"),
        (torch.float32, {}, "eager"),
        (torch.bfloat16, {"intermediate_size": 20}, "eager"),
        (torch.bfloat16, {"hidden_size": 36}, "eager"),
    ],
)
def test_experts_run_in_one_kernel_where_it_takes_them(
    dtype: torch.dtype, changes: dict[str, int], implementation: str
) -> None:
    config = MixtralConfig(**{"hidden_size": 32, "intermediate_size": 48} | changes)
    config.dtype = dtype
    experts = FAMILIES["mixtral"].experts
    assert experts_implementation(config, experts) == implementation


def test_the_hub_is_off() -> None:
    code = (
        "import triparty.cloud.serving.local; from huggingface_hub import constants; "
        "raise SystemExit(not constants.HF_HUB_OFFLINE)"
    )
    environment = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


@pytest.mark.parametrize("name", ["extra.bin", "model.pt", "weights.pkl", "modeling_x.py"])
def test_files_that_could_hold_code_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    with pytest.raises(FileTypeError, match=name):
        load_model(folder, placement=CPU)


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    with pytest.raises(UnsupportedModelError, match="adapter"):
        load_model(folder, placement=CPU)


def test_keys_that_the_stock_class_does_not_declare_change_nothing(folder: Path) -> None:
    edit_config(folder, transformers_weights="/etc/passwd", output_hidden_states=True, _x=1)
    config = load_model(folder, placement=CPU).config
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
        load_model(folder, placement=CPU)


def test_a_width_that_the_weights_do_not_have_is_refused_before_allocating(
    folder: Path,
) -> None:
    edit_config(folder, intermediate_size=10**9)
    with pytest.raises(CheckpointError, match="has shape"):
        load_model(folder, placement=CPU)


def test_a_missing_tensor_is_refused(folder: Path) -> None:
    edit_weights(folder, {"model.norm.weight": None})
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
        load_model(folder, placement=CPU)


def test_the_input_embedding_may_be_missing(folder: Path) -> None:
    edit_weights(folder, {"model.embed_tokens.weight": None})
    load_model(folder, placement=CPU)


@pytest.mark.parametrize("document", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_broken_configuration_file_is_refused(folder: Path, document: bytes) -> None:
    (folder / "config.json").write_bytes(document)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(folder, placement=CPU)


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(folder, placement=CPU)


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
    load_model(folder, placement=CPU)

    (folder / "a.safetensors").rename(tmp_path / "a.safetensors")
    moved = {n: s.replace("a.", "../a.") for n, s in weight_map.items()}
    index.write_text(json.dumps({"metadata": {}, "weight_map": moved}))
    with pytest.raises(CheckpointError, match="not a file beside it"):
        load_model(folder, placement=CPU)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json"):
        load_model(folder, placement=CPU)


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
    model = load_model(tmp_path, placement=CPU)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
