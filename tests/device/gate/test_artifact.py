"""Gates on disk: whole or refused, for their owner alone."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from triparty.common.documents import canonical
from triparty.common.errors import (
    CheckpointError,
    FileTypeError,
    FormatVersionError,
    ManifestError,
    SettingsError,
    TripartyError,
)
from triparty.device.gate.artifact import Gate, GateTask, TrainingFacts
from triparty.device.gate.features import FeatureChoice
from triparty.device.gate.predictor import Network, Predictor, random_weights

NETWORK = Network("extended", FeatureChoice(window=4), 2)
FACTS = TrainingFacts(12, 3456, 7, "random", 1, 0.125, (0.25, 0.0625))


def gate(seed: int = 0) -> Gate:
    weights = random_weights(NETWORK, rng=np.random.default_rng(seed))
    tasks = (GateTask("people"), GateTask("smoke", 0.3))
    return Gate(Predictor(NETWORK, weights), tasks, FACTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    gate().save(tmp_path / "gate")
    return tmp_path / "gate"


def test_what_was_saved_is_opened(folder: Path) -> None:
    opened = Gate.open(folder)
    assert opened.predictor.network == NETWORK
    assert (opened.tasks, opened.training) == (gate().tasks, FACTS)
    for name, weight in gate().predictor.weights.items():
        np.testing.assert_array_equal(opened.predictor.weights[name], weight)


def test_the_weights_are_an_ordinary_safetensors_file(folder: Path) -> None:
    for name, weight in load_file(folder / "gate.safetensors").items():
        np.testing.assert_array_equal(weight, gate().predictor.weights[name])


def test_only_the_owner_may_read_a_gate(folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_gate_takes_the_place_of_a_gate_and_of_nothing_else(
    folder: Path, tmp_path: Path
) -> None:
    gate(1).save(folder)
    weights = Gate.open(folder).predictor.weights
    np.testing.assert_array_equal(
        weights["heads.weight"], gate(1).predictor.weights["heads.weight"]
    )
    other = tmp_path / "photos"
    other.mkdir()
    with pytest.raises(SettingsError, match="no gate"):
        gate().save(other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gate", "photos"]


def changed(folder: Path, **members: object) -> Path:
    path = folder / "gate.json"
    path.write_bytes(canonical({**json.loads(path.read_bytes()), **members}))
    return folder


def features(**members: object) -> dict[str, object]:
    usual = {"groups": list(NETWORK.features.groups), "window": 4, "estimator": "discounted"}
    return {**usual, "horizon": 90_000, **members}


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"type": "triparty.manifest"}, ManifestError),
        ({"format_version": 2}, FormatVersionError),
        ({"format_version": 0}, ManifestError),
        ({"more": 1}, ManifestError),
        ({"network": "mlp"}, ManifestError),
        ({"network": "published"}, ManifestError),
        ({"network": 3}, ManifestError),
        ({"normalisation": "none"}, ManifestError),
        ({"features": features(groups=["size"])}, ManifestError),
        ({"features": features(groups=[["type"]])}, ManifestError),
        ({"features": features(groups=[])}, ManifestError),
        ({"features": features(window=0)}, ManifestError),
        ({"features": features(window=65)}, ManifestError),
        ({"features": features(window=5)}, CheckpointError),
        ({"features": features(estimator="mean")}, ManifestError),
        ({"features": features(horizon=1)}, ManifestError),
        ({"features": []}, ManifestError),
        ({"tasks": []}, ManifestError),
        ({"tasks": [{"name": "a", "threshold": "0.5"}]}, CheckpointError),
        ({"tasks": [{"name": "a", "threshold": "0.5"}] * 2}, ManifestError),
        ({"tasks": [{"name": "a", "threshold": t} for t in "12"]}, ManifestError),
        ({"tasks": [{"name": n, "threshold": "1.5"} for n in "ab"]}, ManifestError),
        ({"tasks": [{"name": n, "threshold": "nan"} for n in "ab"]}, ManifestError),
        ({"tasks": [{"name": n, "threshold": "0.50"} for n in "ab"]}, ManifestError),
        ({"tasks": [{"name": "A", "threshold": "0.5"}] * 2}, ManifestError),
        ({"training": {}}, ManifestError),
    ],
)
def test_a_document_that_cannot_be_is_refused(
    members: dict[str, object], error: type[TripartyError], folder: Path
) -> None:
    with pytest.raises(error):
        Gate.open(changed(folder, **members))


def test_weights_that_cannot_be_are_refused(folder: Path) -> None:
    weights, path = gate().predictor.weights, folder / "gate.safetensors"
    for wrong, error in (
        ({**weights, "heads.bias": np.zeros(3, np.float32)}, CheckpointError),
        ({**weights, "heads.bias": np.full(2, np.inf, np.float32)}, CheckpointError),
        ({**weights, "heads.bias": np.zeros(2)}, FileTypeError),
        ({"heads.bias": np.zeros(2, np.float32)}, CheckpointError),
    ):
        save_file(wrong, path)
        with pytest.raises(error):
            Gate.open(folder)
    path.unlink()
    with pytest.raises(FileTypeError, match="cannot read"):
        Gate.open(folder)
    (folder / "gate.json").unlink()
    with pytest.raises(ManifestError, match="cannot read"):
        Gate.open(folder)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["gate.json", "gate.safetensors"]),
    st.integers(0, 1 << 20),
    st.binary(max_size=4),
    st.integers(0, 8),
)
def test_damage_is_an_error_of_ours_or_another_whole_gate(
    folder: Path, name: str, place: int, inserted: bytes, removed: int
) -> None:
    gate().save(folder)
    path = folder / name
    whole = path.read_bytes()
    place %= len(whole)
    path.write_bytes(whole[:place] + inserted + whole[place + removed :])
    try:
        opened = Gate.open(folder)
    except TripartyError:
        return
    inputs = np.ones((2, opened.predictor.network.features.width), np.float32)
    assert np.isfinite(opened.predictor.probabilities(inputs)).all()


def test_parts_that_do_not_fit_are_no_gate() -> None:
    predictor = gate().predictor
    with pytest.raises(SettingsError, match="2 heads"):
        Gate(predictor, (GateTask("one"),), FACTS)
    with pytest.raises(SettingsError, match="one name"):
        Gate(predictor, (GateTask("one"), GateTask("one")), FACTS)
