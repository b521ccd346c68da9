"""What goes into a filter: modalities told from data, bad rows named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from triparty.common.errors import DatasetError, ManifestError, SettingsError
from triparty.common.nets.design import Design
from triparty.common.nets.inputs import InputSpec, detect
from triparty.common.nets.samples import (
    Inputs,
    Samples,
    check_inputs,
    check_samples,
    gather,
    one_input,
)
from triparty.common.nets.words import LENGTH, VOCABULARY, hashed

POINT = InputSpec("input", "vector", (3,))


def samples(inputs: Any, labels: Any) -> Samples:
    return Samples(gather(inputs), np.asarray(labels))


def rows(count: int = 4) -> Any:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


@pytest.mark.parametrize(
    ("shape", "dtype", "modality"),
    [
        ((20,), np.int64, "text"),
        ((20,), np.float32, "vector"),
        ((4000,), np.float32, "audio"),
        ((64, 128), np.uint8, "audio"),
        ((128, 9), np.float16, "series"),
        ((32, 40, 3), np.uint8, "image"),
        ((3, 32, 40), np.float32, "image"),
        ((64, 13, 13), np.float32, "vector"),
        ((5, 32, 40, 3), np.uint8, "video"),
        ((5, 1, 32, 40), np.float32, "video"),
    ],
)
def test_shape_and_type_tell_the_modality(shape: Any, dtype: Any, modality: str) -> None:
    assert detect(np.zeros((2, *shape), dtype)).modality == modality


def test_a_named_modality_overrides_the_table_and_has_to_fit() -> None:
    window = np.zeros((2, 128, 9), np.float32)
    assert detect(window, modality="vector").modality == "vector"
    with pytest.raises(SettingsError, match="no input of 'image'"):
        detect(window, modality="image")
    with pytest.raises(DatasetError, match="no known modality"):
        detect(np.zeros((2, 5, 6, 7, 9), np.float32))
    with pytest.raises(ManifestError):
        InputSpec("No Name", "vector", (3,))
    with pytest.raises(SettingsError, match="vocabulary"):
        InputSpec("a", "vector", (3,), 7)


def test_words_have_the_same_numbers_everywhere() -> None:
    told = hashed(["A dog, a DOG!", ""])
    assert told.shape == (2, LENGTH)
    assert told[0, :6].tolist() == [1084, 768, 2683, 1084, 768, 4955]
    assert not told[0, 6:].any()
    assert not told[1].any()
    assert 0 < told[0, :6].min() <= told.max() < VOCABULARY


def test_a_missing_modality_is_zeros_and_said() -> None:
    found = gather({"a": [[1.0, 2.0], None], "t": [None, "two words"]})
    assert found.present.tolist() == [[True, False], [False, True]]
    assert found.columns["a"].tolist() == [[1.0, 2.0], [0.0, 0.0]]
    single = one_input(
        {"a": None, "input": rows(1)[0]}, [POINT, InputSpec("a", "vector", (2,))]
    )
    assert single.present.tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        ([[1.0, 2.0, 3.0], [1.0, 2.0]], [0, 1], "row 1 of 'input' has shape"),
        (
            [[1.0, 2.0, 3.0], [1.0, float("nan"), 3.0]],
            [0, 1],
            "row 1 of 'input' holds a number",
        ),
        ([[1.0, 2.0, 3.0], None], [0, 1], "row 1 of 'input' is missing"),
        (["one", 2], [0, 1], "row 1 of 'input' is int"),
        (rows(3), [0, 1], "3 inputs have 2 labels"),
        (rows(3), [1, 1, 1], "label 1 in all 3 rows"),
        (rows(3), [0, 1, 2], "row 2: label 2 of task 0"),
        (rows(3).reshape(3, 3, 1), [0, 1, 1], r"shape \(3, 1\), expected \(3,\)"),
        ({"other": rows(3)}, [0, 1, 1], "expected the inputs input"),
        ([], [], "no row|none"),
        ({"a": rows(3), "b": rows(2)}, [0, 1, 1], "3 of 'a', 2 of 'b'"),
    ],
)
def test_bad_data_is_refused_with_its_row(inputs: Any, labels: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        check_samples(
            samples(inputs, np.array(labels, np.int64)[:, None]), Design("skip", (POINT,))
        )


def test_good_data_passes_in_the_networks_types() -> None:
    done = check_samples(
        samples(rows(3).astype(np.float64), np.array([[0], [1], [1]])), Design("skip", (POINT,))
    )
    assert done.inputs.columns["input"].dtype == np.float32
    text = InputSpec("input", "text", (4,), 9)
    with pytest.raises(DatasetError, match="row 0 of 'input' holds a number below 0"):
        check_inputs(gather(np.full((2, 4), -1)), [text])
    with pytest.raises(DatasetError, match="tokens are integers"):
        check_inputs(gather(np.zeros((2, 4))), [text])


def test_a_row_without_any_modality_is_refused() -> None:
    specs = [InputSpec("a", "vector", (1,)), InputSpec("b", "vector", (1,))]
    columns = {"a": np.zeros((2, 1)), "b": np.zeros((2, 1))}
    present = np.array([[True, False], [False, False]])
    with pytest.raises(DatasetError, match="row 1: all modalities are missing"):
        check_inputs(Inputs(columns, present), specs)


def test_designs_that_cannot_be_built_are_refused() -> None:
    for wrong in ({"tasks": 0}, {"units": 0}, {"dropout": 1.0}, {"resolution": -1}):
        with pytest.raises(SettingsError):
            Design("skip", (POINT,), **wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="different names"):
        Design("skip", (POINT, POINT))
    with pytest.raises(SettingsError, match="kind"):
        Design("drop", (POINT,))  # type: ignore[arg-type]
