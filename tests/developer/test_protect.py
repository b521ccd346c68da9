"""What `protect` writes, where, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.common.errors import (
    CheckpointError,
    FileTypeError,
    SettingsError,
    StateError,
    UnknownTensorError,
    UnsupportedModelError,
)
from triparty.developer.protect import Choices, protect, survey


def edit(folder: Path, **changes: Any) -> Path:
    """Changes options of a saved config.json."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps(config))
    return folder


def resave(folder: Path, change: Any) -> Path:
    """Changes the tensors of a saved model."""
    from safetensors.numpy import load_file, save_file

    tensors = dict(load_file(folder / "model.safetensors"))
    save_file(change(tensors), folder / "model.safetensors")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_out_has_three_folders_for_three_readers(make_model: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    protect(str(make_model("gpt2")), out)
    assert set(files(out)) == {
        "model/config.json",
        "model/model.safetensors",
        "device/device.json",
        "device/embedding.safetensors",
        "device/head.safetensors",
        "device/tokenizer.json",
        "device/tokenizer_config.json",
        "secrets/master.key",
        "secrets/key.json",
    }
    assert (out / "secrets").stat().st_mode & 0o777 == 0o700
    for secret in (out / "secrets").iterdir():
        assert secret.stat().st_mode & 0o777 == 0o600
    assert len((out / "secrets" / "master.key").read_bytes()) == 32


def test_the_key_says_what_it_is_of(make_model: Any, tmp_path: Path) -> None:
    source = make_model("gpt2")
    protect(str(source), tmp_path / "out", choices=Choices(epoch=3))
    key = json.loads((tmp_path / "out" / "secrets" / "key.json").read_text())
    assert key == {
        "family": "gpt2",
        "scheme": "permutation",
        "interface": "embeddings",
        "norms": "fold",
        "expand": None,
        "head_scales": False,
        "head": "cloud",
        "epoch": 3,
        "derivation_version": 1,
        "reproducible_seed": False,
        "source": str(source.resolve()),
    }
    device = json.loads((tmp_path / "out" / "device" / "device.json").read_text())
    assert device["epoch"] == 3


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_no_secret_and_no_original_row_leaves_the_developer(
    family: str, make_model: Any, bits_of: Any, tmp_path: Path
) -> None:
    source, out = make_model(family), tmp_path / "out"
    protect(str(source), out)
    master = (out / "secrets" / "master.key").read_bytes()
    public = b"".join(files(out / "model").values()) + b"".join(files(out / "device").values())
    assert master not in public
    assert master.hex().encode() not in public
    assert b"/home/me" not in public
    for name, bits in bits_of(source).items():
        if bits.ndim == 2:
            assert not [row for row in bits if row.tobytes() in public], name
            assert not [row for row in bits.T if row.tobytes() in public], name


def test_the_search_for_original_rows_finds_them(make_model: Any, bits_of: Any) -> None:
    source = make_model("llama")
    public = (source / "model.safetensors").read_bytes()
    bits = bits_of(source)["model.embed_tokens.weight"]
    assert all(row.tobytes() in public for row in bits)


def test_hosted_configuration_names_nothing(make_model: Any, tmp_path: Path) -> None:
    source = edit(make_model("llama"), _name_or_path="/home/me/secret", note="mine")
    out = tmp_path / "out"
    found = protect(str(source), out)
    config = json.loads((out / "model" / "config.json").read_text())
    assert [config[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [None] * 3
    assert config["tie_word_embeddings"] is False
    assert not {"_name_or_path", "note", "transformers_version"} & set(config)
    assert {"_name_or_path", "note"} <= set(found.options.left_out())


def test_the_stock_class_finds_exactly_its_tensors(make_model: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    for family, options in (("llama", {"shard": "8KB"}), ("gpt2", {})):
        out = tmp_path / family
        protect(str(make_model(family, **options)), out)
        loading: Any = AutoModelForCausalLM.from_pretrained(
            out / "model", output_loading_info=True, local_files_only=True
        )
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
            assert not loading[1][what]


def test_special_tokens_go_to_the_device(make_model: Any, tmp_path: Path) -> None:
    source = make_model("llama")
    generation = {"eos_token_id": [1, 5], "pad_token_id": -1}
    (source / "generation_config.json").write_text(json.dumps(generation))
    (source / "chat_template.jinja").write_text("{{ messages }}")
    info = protect(str(source), tmp_path / "out").info
    assert (info.bos_id, info.eos_ids, info.pad_id) == (0, (1, 5), None)
    assert info.chat_template == "{{ messages }}"


def test_two_runs_give_different_keys(make_model: Any, tmp_path: Path) -> None:
    source = make_model("llama")
    for name in ("a", "b"):
        protect(str(source), tmp_path / name)
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    for name in (
        "model/model.safetensors",
        "device/embedding.safetensors",
        "secrets/master.key",
    ):
        assert a[name] != b[name]


def test_the_same_seed_gives_the_same_bytes(make_model: Any, tmp_path: Path) -> None:
    source = make_model("llama", shard="8KB")
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        protect(str(source), tmp_path / name, seed=seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")


def test_old_gpt2_names_and_buffers(make_model: Any, disagreement: Any, tmp_path: Path) -> None:
    def old(tensors: dict[str, Any]) -> dict[str, Any]:
        renamed = {n.removeprefix("transformer."): t for n, t in tensors.items()}
        for layer in range(2):
            renamed[f"h.{layer}.attn.bias"] = np.ones((1, 1, 32, 32), np.uint8)
            renamed[f"h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
        return renamed

    source = resave(make_model("gpt2"), old)
    protect(str(source), tmp_path / "out")
    assert disagreement(source, tmp_path / "out") < 2e-6


def test_a_repeated_tied_head_is_one_head(
    make_model: Any, disagreement: Any, tmp_path: Path
) -> None:
    source = make_model("gpt2")
    resave(source, lambda t: {**t, "lm_head.weight": t["transformer.wte.weight"].copy()})
    protect(str(source), tmp_path / "out")
    assert disagreement(source, tmp_path / "out") < 2e-6
    resave(source, lambda t: {**t, "lm_head.weight": t["transformer.wte.weight"] + 1})
    with pytest.raises(UnsupportedModelError, match="tie_word_embeddings"):
        protect(str(source), tmp_path / "other")


def without(name: str) -> Any:
    return lambda tensors: {n: t for n, t in tensors.items() if n != name}


def test_unknown_and_missing_tensors_are_named(make_model: Any, tmp_path: Path) -> None:
    extra = "model.layers.0.self_attn.q_norm.weight"
    source = resave(make_model("llama"), lambda t: {**t, extra: np.ones(8, np.float32)})
    with pytest.raises(UnknownTensorError, match="q_norm"):
        protect(str(source), tmp_path / "out")
    missing = "model.layers.1.mlp.up_proj.weight"
    source = resave(make_model("llama"), without(missing))
    with pytest.raises(UnknownTensorError, match=missing):
        protect(str(source), tmp_path / "out")
    source = resave(make_model("llama"), without("lm_head.weight"))
    with pytest.raises(UnknownTensorError, match="lm_head"):
        protect(str(source), tmp_path / "out")
    layer = "model.layers.2.input_layernorm.weight"
    source = resave(make_model("llama"), lambda t: {**t, layer: np.ones(24, np.float32)})
    with pytest.raises(UnknownTensorError, match=r"layers\.2"):
        protect(str(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shapes_are_checked_before_work(make_model: Any, tmp_path: Path) -> None:
    source = edit(make_model("llama"), intermediate_size=21)
    with pytest.raises(CheckpointError, match=r"\[24, 20\].*\[24, 21\]"):
        protect(str(source), tmp_path / "out")


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        ("llama", {"hidden_act": "softmax"}, "hidden_act"),
        ("llama", {"pretraining_tp": 2}, "pretraining_tp"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
        ("llama", {"rope_scaling": {"type": "longrope"}}, "longrope"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"num_key_value_heads": 3}, "groups"),
        ("llama", {"head_dim": 7}, "pairs"),
        ("llama", {"attention_bias": "yes"}, "attention_bias"),
        ("llama", {"hidden_size": 0}, "hidden_size"),
        ("llama", {"model_type": "mamba"}, "mamba.*gpt2, llama"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForCausalLM"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("gpt2", {"activation_function": "glu"}, "activation_function"),
        ("gpt2", {"auto_map": {"AutoModel": "evil.py"}}, "auto_map"),
    ],
)
def test_options_without_a_plan_are_refused(
    family: str, changes: dict[str, Any], named: str, make_model: Any, tmp_path: Path
) -> None:
    source = edit(make_model(family), **changes)
    with pytest.raises(UnsupportedModelError, match=named):
        protect(str(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ({"scheme": "diagonal"}, "permutation, orthogonal"),
        ({"interface": "weights"}, "embeddings, tokens"),
        ({"norms": "drop"}, "fold, keep"),
        ({"epoch": 0}, "epoch"),
        ({"scheme": "orthogonal", "norms": "keep"}, "'fold'"),
        ({"expand": 32}, "orthogonal"),
        ({"interface": "tokens", "head_scales": True}, "embeddings"),
    ],
)
def test_choices_that_do_not_exist_are_refused(choices: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Choices.of(**choices)


def test_quantised_weights_are_refused(make_model: Any, tmp_path: Path) -> None:
    source = make_model("llama")
    resave(source, lambda t: {n: a.astype(np.int8) for n, a in t.items()})
    with pytest.raises(UnsupportedModelError, match=r"I8.*then quantise"):
        protect(str(source), tmp_path / "out")


def test_out_is_never_overwritten_and_never_half_made(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triparty.developer.protect import compiler

    source, out = make_model("llama"), tmp_path / "new" / "out"
    protect(str(source), out, seed=1)
    before = files(out)
    with pytest.raises(StateError, match="exists already"):
        protect(str(source), out, seed=2)
    assert files(out) == before

    def fails(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(compiler, "write_bundle", fails)
    with pytest.raises(StateError, match=r"not whole yet: disk full.*the same command goes on"):
        protect(str(source), tmp_path / "new" / "other")
    assert not (tmp_path / "new" / "other").exists()


def test_pickles_are_refused_with_the_remedy(make_model: Any, tmp_path: Path) -> None:
    source = make_model("llama")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(FileTypeError, match=r"pickle.*save_pretrained"):
        protect(str(source), tmp_path / "out")


def test_a_slow_tokenizer_alone_is_refused_with_the_remedy(make_model: Any) -> None:
    source = make_model("llama")
    (source / "tokenizer.json").rename(source / "tokenizer.model")
    with pytest.raises(CheckpointError, match=r"tokenizer\.model.*AutoTokenizer"):
        survey(str(source), Choices())


def test_a_broken_index_is_refused(make_model: Any) -> None:
    source = make_model("llama", shard="8KB")
    index = source / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    mapped = document["weight_map"]
    files_of = sorted(set(mapped.values()) - {mapped["lm_head.weight"]})
    for name, file, named in (
        ("lm_head.weight", files_of[0], "disagree"),
        ("absent.weight", files_of[0], "disagree"),
        ("lm_head.weight", "../../etc/passwd", "plain relative path"),
        ("lm_head.weight", "absent.safetensors", "not there"),
    ):
        broken = {**document, "weight_map": {**document["weight_map"], name: file}}
        index.write_text(json.dumps(broken))
        with pytest.raises(CheckpointError, match=named):
            survey(str(source), Choices())


def test_sources_that_are_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="not a folder"):
        survey(str(tmp_path / "absent"), Choices())
    with pytest.raises(CheckpointError, match="offline"):
        survey("nobody/nothing", Choices())
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        survey(str(tmp_path), Choices())
