"""Which links are built: a dependence that is there is found, one that is not is not."""

from __future__ import annotations

import numpy as np
import pytest
from linked_outputs import SPECS, linked

from triparty.common.errors import SettingsError
from triparty.common.links.pairs import chosen_pairs, correlated_number, dependences
from triparty.common.links.recorded import Recorded, check_recorded
from triparty.common.links.specs import Vec

NUMBERS = Vec("regression", 2)


def with_noise(count: int) -> Recorded:
    whole = linked(count)
    noise = np.random.default_rng(9).normal(size=(count, 2))
    return check_recorded({**SPECS, "noise": NUMBERS}, {**whole.outputs, "noise": noise})


def test_dependence_is_found_where_it_is() -> None:
    found = dependences(with_noise(300))
    assert len(found) == 8 * 7
    assert all(0 <= value <= 1 for value in found.values())
    for (source, target), value in found.items():
        if "noise" in (source, target):
            assert value < 0.03
        elif source == "class" or (source, target) == ("count", "size"):
            assert value > 0.8


def test_noise_is_linked_to_nothing_but_always_to_one() -> None:
    pairs = chosen_pairs(with_noise(300), most_sources=3)
    by_target = {name: [one for one, other in pairs if other == name] for name in SPECS}
    assert all("noise" not in sources for sources in by_target.values())
    assert all(len(sources) == 3 for sources in by_target.values())
    assert len([pair for pair in pairs if pair[1] == "noise"]) == 1
    assert chosen_pairs(with_noise(300), most_sources=3) == pairs


def test_more_values_than_rows_are_no_trouble() -> None:
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(30, 200))
    recorded = check_recorded(
        {"wide": Vec("regression", 200), "one": Vec("regression", 1)},
        {"wide": wide, "one": wide[:, :1]},
    )
    assert 0 <= dependences(recorded)["wide", "one"] <= 1
    assert dependences(recorded)["one", "wide"] < 0.05


def test_refusals_and_the_thesis_number() -> None:
    with pytest.raises(SettingsError, match="1 or more"):
        chosen_pairs(linked(30), most_sources=0)
    with pytest.raises(SettingsError, match="8 rows tell nothing"):
        dependences(linked(8))
    whole = linked(30)
    box = correlated_number(SPECS["box"], whole.outputs["box"])
    assert set(box.tolist()) == {0.0, 1.0}
    with pytest.raises(SettingsError, match="no one number"):
        correlated_number(SPECS["words"], whole.outputs["words"])
