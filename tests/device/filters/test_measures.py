"""What a result says of whether it was needed, and what stands for one that is skipped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from triparty.common.errors import DatasetError, SettingsError
from triparty.device.filters import measures, results
from triparty.device.filters.measures import Measure, label_of, measure, named, restored


class Seen:
    def __init__(self, count: int) -> None:
        self.boxes = np.zeros((count, 4))


@pytest.mark.parametrize(
    ("found", "said", "needed", "kind"),
    [
        (measures.as_given(), [True, 0, 1.0], [1, 0, 1], results.Redundant),
        (measures.nothing_detected(), [[], ["face"], Seen(0), Seen(2)], [0, 1, 0, 1],
         results.NothingDetected),
        (measures.count_zero(), [0, 3, np.int64(0)], [0, 1, 0], results.ZeroCount),
        (measures.class_not_in(1, 2), [0, 1, [0.1, 0.2, 0.7], [0.9, 0.1, 0.0]], [0, 1, 1, 0],
         results.OtherClass),
        (measures.class_not_in("cat"), ["dog", "cat", np.str_("cat")], [0, 1, 1],
         results.OtherClass),
        (measures.confidence_below(0.5), [[0.4, 0.3], [0.5, 0.5], 0.9], [0, 1, 1],
         results.LowConfidence),
        (measures.fewer_words_than(2), ["", "one", "one two"], [0, 0, 1], results.EmptyText),
        (measures.regression_above(1.5), [1.5, 2, -3.0], [1, 0, 1], results.OutOfBound),
        (measures.label_changed(), ["a", "a", "b", "b", "a"], [1, 0, 1, 0, 1],
         results.Unchanged),
    ],
    ids=lambda value: value.name if isinstance(value, Measure) else None,
)  # fmt: skip
def test_each_measure_judges_results_and_stands_in_for_them(
    found: Measure, said: list[Any], needed: list[int], kind: type
) -> None:
    assert found.needed(said).tolist() == [bool(one) for one in needed]
    skipped = found.skipped("street")
    assert type(skipped) is kind
    assert skipped.task == "street"
    assert skipped is not None
    again = named(found.name, *found.parameters)
    assert again.needed(said).tolist() == found.needed(said).tolist()
    assert again.skipped("street") == skipped


def test_what_stands_in_behaves_like_an_empty_result() -> None:
    assert list(results.NothingDetected("a")) == []
    assert len(results.NothingDetected("a")) == 0
    assert int(results.ZeroCount("a")) == 0
    assert [7][results.ZeroCount("a")] == 7
    assert str(results.EmptyText("a")) == ""
    assert results.OtherClass("a", ("1",)).wanted == ("1",)
    assert measures.regression_above(2).skipped("a").bound == 2.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("found", "bad"),
    [
        (measures.as_given(), 0.5),
        (measures.nothing_detected(), 3),
        (measures.count_zero(), "three"),
        (measures.class_not_in(1), {}),
        (measures.confidence_below(0.5), "high"),
        (measures.fewer_words_than(2), 7),
        (measures.regression_above(1.0), float("nan")),
    ],
    ids=lambda value: value.name if isinstance(value, Measure) else None,
)
def test_a_result_that_cannot_be_judged_is_named(found: Measure, bad: Any) -> None:
    good = {"nothing-detected": [], "fewer-words-than": "a", "class-not-in": 1}.get(
        found.name, 1
    )
    with pytest.raises(DatasetError, match="row 1"):
        found.needed([good, bad])


def test_a_measure_of_ones_own_is_a_decorator() -> None:
    @measure
    def has_meeting(result: list[str]) -> bool:
        return "projector" in result

    assert has_meeting.name == "has-meeting"
    assert has_meeting.needed([["projector"], []]).tolist() == [True, False]
    assert has_meeting.skipped("room") == results.Redundant("room")
    kept = restored("has-meeting", ())
    assert kept.skipped("room") == results.Redundant("room")
    with pytest.raises(SettingsError, match="give it again"):
        kept.needed([[]])


@pytest.mark.parametrize(
    "wrong",
    [("colour",), ("count-zero", "1"), ("regression-above", "high"), ("class-not-in",)],
)
def test_unknown_measures_and_parameters_are_refused(wrong: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError):
        named(*wrong)


def test_labels_of_results() -> None:
    assert label_of(np.int64(3)) == 3
    assert label_of(np.array([0.1, 0.8])) == 1
    assert label_of(np.array([5])) == 5
    assert label_of("a") == "a"
    assert label_of(None) is None
    with pytest.raises(TypeError):
        label_of({})
    with pytest.raises(TypeError):
        label_of(np.array(["a", "b"]))
