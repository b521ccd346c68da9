"""The law of placement: where a model's layers lie changes no bit of its answers."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from triparty.cloud.serving.attention import Span
from triparty.cloud.serving.engine import Arrays, Reply, Work
from triparty.cloud.serving.hosting import load_local
from triparty.cloud.serving.loading import load_model
from triparty.cloud.serving.local import LocalEngine
from triparty.cloud.serving.placement import DISK, Placement, devices_of, input_device
from triparty.cloud.settings import CloudSettings
from triparty.common.errors import SettingsError

LOGITS = Reply.parse("logits")
SPLIT = Placement(max_memory={"cpu": "20KB"})


def _answers(engine: LocalEngine) -> list[Arrays]:
    """Of two sessions: a prompt, a rollback into it, and rows that sessions share."""
    width = engine.info.width
    rows = np.random.default_rng(1).normal(size=(40, width)).astype(np.float32)
    answers = engine.run([Work("a", 0, rows, LOGITS), Work("b", 0, rows[:3], LOGITS)])
    answers += engine.run([Work("a", 21, rows[:4], LOGITS), Work("b", 3, rows[5:6], LOGITS)])
    engine.fork("a", "c", position=22)
    return answers + engine.run([Work("c", 22, rows[7:9], LOGITS)])


def test_layers_in_files_answer_as_layers_in_memory(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every family; windows, experts and tied heads included."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = load_model(tiny_folder, placement=SPLIT)
    assert DISK in devices_of(model), "the test splits nothing"
    assert input_device(model) == torch.device("cpu")
    expected = _answers(LocalEngine.load(tiny_folder, Placement("cpu")))
    for got, want in zip(_answers(LocalEngine(model)), expected, strict=True):
        for one, other in zip(got, want, strict=True):
            np.testing.assert_array_equal(one, other)
    del model
    gc.collect()
    assert not list(tmp_path.iterdir()), "weights of a model that is gone are left"


@pytest.mark.parametrize("most", ["900KB", "100KB"])
def test_a_trained_model_in_two_places_generates_the_same(
    most: str, data_folder: Path, reference_of: Any
) -> None:
    folder = data_folder / "models" / "stories260K"
    reference = reference_of(folder)
    engine = LocalEngine.load(folder, Placement(max_memory={"cpu": most}))
    ids, rows = [], np.array([1, 403, 407])
    expected = reference.greedy(rows.tolist(), 30)
    for position in [0, *range(3, 32)]:
        ((answer,),) = engine.run(
            [Work("s", position, reference.embeddings[rows], Reply.parse("id"))]
        )
        ids, rows = [*ids, int(answer[0])], answer
    assert ids == expected


def test_masks_are_where_the_layer_is(tiny_folders: dict[str, Path]) -> None:
    """A device without numbers stands for another accelerator."""
    model = load_model(tiny_folders["gemma2"], placement=Placement("cpu"))
    engine = LocalEngine(model)
    rows = np.zeros((5, engine.info.width), np.float32)
    engine.run([Work("s", 0, rows, None)])
    (cache,) = engine._caches.values()
    span = Span.of(position=3, rows=2, cache=cache)
    for device in (torch.device("cpu"), torch.device("meta")):
        mask = span.reach(2, device).mask
        assert mask is not None
        assert mask.device == device
        assert span.reach(2, device).mask is mask


def test_weights_become_the_type_that_the_operator_chose(
    tiny_folders: dict[str, Path],
) -> None:
    folder = tiny_folders["llama"]
    exact = _answers(LocalEngine.load(folder, Placement("cpu")))
    engine = LocalEngine.load(folder, Placement("cpu", dtype="bfloat16"))
    (model_dtype,) = {weight.dtype for weight in engine._model.parameters()}
    assert model_dtype == torch.bfloat16
    for (got,), (want,) in zip(_answers(engine), exact, strict=True):
        error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
        assert 0 < error < 0.05  # rounded to eight bits, and not another model


def test_the_operators_settings_reach_the_weights(
    tiny_folders: dict[str, Path], settings: Any
) -> None:
    chosen = settings(dtype="float16", max_memory={"cpu": "20KB"})
    engine = load_local(tiny_folders["llama"], chosen)
    assert isinstance(engine, LocalEngine)
    assert engine._model.dtype == torch.float16
    assert DISK in devices_of(engine._model)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it has what this test says it lacks")
@pytest.mark.parametrize(
    "chosen", [{"device": "cuda"}, {"device": "cuda:7"}, {"max_memory": {"0": "1GiB"}}]
)
def test_a_device_that_is_not_there_is_named(
    chosen: dict[str, Any], settings: Any, tiny_folders: dict[str, Path]
) -> None:
    with pytest.raises(SettingsError, match=r"device 'cuda.*torch sees 0"):
        load_local(tiny_folders["llama"], settings(**chosen))


@pytest.mark.parametrize(
    ("chosen", "word"),
    [
        ({"device": "gpu"}, "device"),
        ({"device": "cpu", "max_memory": {"cpu": "1GiB"}}, "leave one out"),
        ({"max_memory": {"disk": "1GiB"}}, "no device"),
        ({"max_memory": {"cpu": "much"}}, "no size"),
        ({"dtype": "int8"}, "dtype"),
    ],
)
def test_settings_that_place_nothing_are_refused(
    chosen: dict[str, Any], word: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=word):
        CloudSettings.load(None, data=tmp_path, **chosen)


def test_placement_is_written_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "cloud.toml"
    file.write_text(
        'device = "auto"\ndtype = "bfloat16"\n[max_memory]\n0 = "20GiB"\ncpu = "1.5GiB"\n'
    )
    read = CloudSettings.load(file, data=tmp_path)
    assert read.max_memory == {"0": "20GiB", "cpu": "1.5GiB"}
    assert Placement(max_memory=read.max_memory).options() == {
        "device_map": "auto",
        "max_memory": {0: "20GiB", "cpu": "1.5GiB"},
    }
