"""Checkpoints that cannot be protected: what is said, and that nothing is left."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.common.errors import (
    CheckpointError,
    FileTypeError,
    StateError,
    TripartyError,
    UnknownTensorError,
    UnsupportedModelError,
)
from triparty.developer.protect import Choices, protect, survey
from triparty.developer.protect.families import family_of
from triparty.developer.protect.options import REMEDIES, SAFE_VALUES


def resave(folder: Path, file: str, name: str, array: np.ndarray) -> None:
    from safetensors.numpy import load_file, save_file

    save_file({**load_file(folder / file), name: array}, folder / file)


def holder_of(folder: Path, tensor: str) -> str:
    """The file that holds a tensor."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return str(index["weight_map"][tensor])


def unknown_tensor(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    file = holder_of(folder, "model.norm.weight")
    resave(folder, file, "model.extra.weight", np.ones(3, np.float32))
    document["weight_map"]["model.extra.weight"] = file
    index.write_text(json.dumps(document))


def unknown_family(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "xlstm"}))


def unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["LlamaForTokenPainting"]
    (folder / "config.json").write_text(json.dumps(config))


def truncated_shard(folder: Path) -> None:
    path = folder / holder_of(folder, "lm_head.weight")
    os.truncate(path, path.stat().st_size - 1)


def truncated_header(folder: Path) -> None:
    os.truncate(folder / holder_of(folder, "lm_head.weight"), 60)


def missing_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()


def missing_shard(folder: Path) -> None:
    (folder / holder_of(folder, "lm_head.weight")).unlink()


def damaged_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map"')


def nan_weight(folder: Path) -> None:
    name = "model.layers.1.self_attn.o_proj.weight"
    file = holder_of(folder, name)
    poisoned = np.ones((24, 32), np.float32)
    poisoned[3, 4] = np.nan
    resave(folder, file, name, poisoned)


def infinite_norm(folder: Path) -> None:
    name = "model.norm.weight"
    poisoned = np.ones(24, np.float32)
    poisoned[3] = -np.inf
    resave(folder, holder_of(folder, name), name, poisoned)


REFUSED: list[tuple[Callable[[Path], None], type[TripartyError], str]] = [
    (unknown_tensor, UnknownTensorError, r"model\.extra\.weight"),
    (unknown_family, UnsupportedModelError, r"'xlstm'.*llama.*adding-a-family"),
    (
        unknown_architecture,
        UnsupportedModelError,
        r"TokenPainting.*LlamaForCausalLM.*save that",
    ),
    (truncated_shard, FileTypeError, r"model-000.*its tensors have \d+ bytes, the file \d+"),
    (truncated_header, FileTypeError, r"model-000.*header does not fit"),
    (missing_index, CheckpointError, r"neither model\.safetensors nor .*index\.json.*download"),
    (missing_shard, CheckpointError, r"names 'model-000.*', which is not there: download"),
    (damaged_index, CheckpointError, r"index\.json is not JSON: download"),
    (nan_weight, CheckpointError, r"layers\.1\.self_attn\.o_proj\.weight' holds NaN"),
    (infinite_norm, CheckpointError, r"' holds NaN or infinity"),
]


@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
@pytest.mark.parametrize(("spoil", "error", "named"), REFUSED)
def test_a_checkpoint_that_is_refused_leaves_nothing(
    spoil: Callable[[Path], None],
    error: type[TripartyError],
    named: str,
    scheme: str,
    make_model: Any,
    tmp_path: Path,
) -> None:
    source = make_model("llama", shard="8KB")
    spoil(source)
    (tmp_path / "new").mkdir()
    with pytest.raises(error, match=named):
        protect(str(source), tmp_path / "new" / "out", choices=Choices.of(scheme=scheme))
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("named", ["LlamaModel", "LlamaForCausalLM"])
def test_the_remedy_for_pickles_works(named: str, make_model: Any, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    source = make_model("llama")
    weights = load_file(source / "model.safetensors")
    if named == "LlamaModel":
        weights.pop("lm_head.weight")
        weights = {name.removeprefix("model."): w for name, w in weights.items()}
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "architectures": [named]}))
    torch.save(weights, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    with pytest.raises(FileTypeError, match="a pickle, which can run code") as refused:
        survey(str(source), Choices())
    remedy = re.search(r'python -c "(.*)"', refused.value.message)
    assert remedy
    assert named in remedy[1]
    exec(remedy[1].replace("SRC", str(source)).replace("NEW", str(tmp_path / "new")))
    made = load_file(tmp_path / "new" / "model.safetensors")
    assert made.keys() == weights.keys()
    assert all(torch.equal(made[name], weights[name]) for name in made)


def test_the_remedy_runs_nothing_that_the_checkpoint_says(make_model: Any) -> None:
    source = make_model("llama")
    config = json.loads((source / "config.json").read_text())
    config["architectures"] = ['X"; rm -rf ~; "']
    (source / "config.json").write_text(json.dumps(config))
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(FileTypeError, match="AutoModel") as refused:
        survey(str(source), Choices())
    assert "rm -rf" not in refused.value.message


def configured(folder: Path, **changes: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


@pytest.mark.parametrize("name", sorted(SAFE_VALUES))
def test_an_option_without_a_plan_is_refused_with_its_remedy(
    name: str, make_model: Any
) -> None:
    """What: the option. Expected: what has a plan. Got: its value. And what helps."""
    value = {"auto_map": {"AutoModel": "evil.py"}, "quantization_config": {"bits": 4}}
    source = configured(make_model("llama"), **{name: value.get(name, 3)})
    with pytest.raises(UnsupportedModelError) as refused:
        survey(str(source), Choices())
    said = refused.value.message
    assert name in said
    if name != "quantization_config":  # which is refused before any plan is looked for
        assert repr(value.get(name, 3)) in said
        assert f"there is a plan for: {', '.join(sorted(map(str, SAFE_VALUES[name])))}" in said
        assert said.endswith(REMEDIES[name])


def test_the_remedy_for_code_in_a_checkpoint_works(make_model: Any, tmp_path: Path) -> None:
    source = configured(make_model("llama"), auto_map={"AutoModel": "evil.py"})
    with pytest.raises(UnsupportedModelError, match=r"remove 'auto_map' from config\.json"):
        survey(str(source), Choices())
    document = json.loads((source / "config.json").read_text())
    del document["auto_map"]
    (source / "config.json").write_text(json.dumps(document))
    protect(str(source), tmp_path / "out")


def test_nothing_is_made_inside_of_the_checkpoint(make_model: Any, tmp_path: Path) -> None:
    source = make_model("llama")
    before = sorted(source.rglob("*"))
    (tmp_path / "link").symlink_to(source)
    for out in (source / "out", source / "a" / "b", tmp_path / "link" / "out"):
        for named in (source, tmp_path / "link"):
            with pytest.raises(StateError, match=r"inside of the checkpoint.*elsewhere"):
                protect(str(named), out)
    assert sorted(source.rglob("*")) == before
    protect(str(source), source.with_name(f"{source.name}-out"))  # beside it, of a like name


def test_a_name_that_a_class_once_had_is_that_class(tmp_path: Path) -> None:
    family, architecture = family_of(
        {"model_type": "t5", "architectures": ["T5WithLMHeadModel"]}
    )
    assert (family.model_type, architecture) == ("t5", "T5ForConditionalGeneration")
    with pytest.raises(UnsupportedModelError, match=r"BertWithLMHead.*save that"):
        family_of({"model_type": "bert", "architectures": ["BertWithLMHead"]})


@pytest.mark.parametrize("interface", ["embeddings", "tokens"])
def test_only_its_owner_reads_what_devices_get(
    interface: str, make_model: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    protect(str(make_model("llama")), out, choices=Choices.of(interface=interface))
    modes = {name: (out / name).stat().st_mode & 0o777 for name in ("device", "secrets")}
    assert modes == {"device": 0o700, "secrets": 0o700}
