"""Ensembles: any subset of sources; who knows most leads, those who know parts help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from linked_outputs import SPECS, linked

from triparty.common.errors import (
    CheckpointError,
    FileTypeError,
    ManifestError,
    SettingsError,
)
from triparty.common.links.design import LinkDesign
from triparty.common.links.ensemble import Ensemble, Member
from triparty.common.links.folder import (
    LINK_FILE,
    WEIGHTS_FILE,
    is_link,
    open_links,
    save_links,
)
from triparty.common.links.linking import all_pairs, train_links
from triparty.common.links.metrics import agreement, score
from triparty.common.links.recipe import Recipe
from triparty.common.links.recorded import Recorded, check_recorded
from triparty.common.links.specs import Vec

pytest.importorskip("torch")
from triparty.common.links.weighing import joined_ensemble, weigh

BITS = Vec("regression", 1)
FOUR = Vec("single-label", 4)
SHORT = Recipe(epochs=25, folds=2)


def halves(count: int, *, first: float, second: float) -> Recorded:
    """A class of two bits; one source tells the first, one the second, with noise."""
    rng = np.random.default_rng(0)
    bits = rng.integers(2, size=(count, 2))
    told = bits + rng.normal(0, [first, second], (count, 2))
    return check_recorded(
        {"high": BITS, "low": BITS, "class": FOUR},
        {
            "high": told[:, :1],
            "low": told[:, 1:],
            "class": np.eye(4)[2 * bits[:, 0] + bits[:, 1]],
        },
    )


def judged(ensemble: Ensemble, recorded: Recorded, *sources: str) -> float:
    outputs = {name: recorded.outputs[name] for name in sources}
    return score(
        ensemble.target, ensemble.predict(outputs).outputs, recorded.outputs[ensemble.name]
    ).share


def test_sources_help_each_other() -> None:
    """Each knows a half: together they know nearly all, and either alone still serves."""
    whole = halves(600, first=0.1, second=0.1)
    learned, tried = whole.part(np.arange(200)), whole.part(np.arange(200, 600))
    made = train_links(learned, SHORT, pairs=[("high", "class"), ("low", "class")])["class"]
    high, low = judged(made, tried, "high"), judged(made, tried, "low")
    assert 0.4 < high < 0.6
    assert 0.4 < low < 0.6
    assert judged(made, tried, "high", "low") > 0.95
    assert made.expected > 0.95


def test_one_source_dominates() -> None:
    """A source that tells all leads one that tells nothing, whose weight falls."""
    rng = np.random.default_rng(1)
    classes = rng.integers(4, size=500)
    recorded = check_recorded(
        {"knows": BITS, "noise": BITS, "class": FOUR},
        {"knows": classes[:, None], "noise": rng.normal(size=(500, 1)),
         "class": np.eye(4)[classes]},
    )  # fmt: skip
    learned, tried = recorded.part(np.arange(100)), recorded.part(np.arange(100, 500))
    made = train_links(learned, SHORT, pairs=[("knows", "class"), ("noise", "class")])["class"]
    weight = {member.source: member.weight for member in made.members}
    assert weight["knows"] > 3 * weight["noise"]
    alone, both = judged(made, tried, "knows"), judged(made, tried, "knows", "noise")
    assert both >= alone - 0.02
    assert judged(made, tried, "noise") < 0.4


def small(weights: tuple[float, ...] = (1.0, 3.0)) -> tuple[Ensemble, Recorded]:
    recorded = linked(30)
    rng = np.random.default_rng(4)
    members = []
    for source, weight in zip(("class", "count"), weights, strict=True):
        design = LinkDesign(SPECS[source], SPECS["tags"])
        drawn = {
            name: np.abs(rng.normal(size=shape)).astype(np.float32)
            for name, shape in design.shapes.items()
        }
        from triparty.common.links.link import Link

        members.append(Member(source, Link(design, drawn), weight))
    return Ensemble("tags", SPECS["tags"], tuple(members), 0.5), recorded


def test_weights_are_renormalised_over_those_present() -> None:
    ensemble, recorded = small()
    one, other = (member.link.logits(recorded.outputs[member.source])
                  for member in ensemble.members)  # fmt: skip
    both = ensemble.logits(recorded.outputs)
    np.testing.assert_allclose(both, 0.25 * one + 0.75 * other, rtol=1e-5)
    alone = ensemble.logits({"class": recorded.outputs["class"]})
    np.testing.assert_array_equal(alone, one)
    assert [member.weight for member in ensemble.among(["count"])] == [1.0]
    unweighed = replace(
        ensemble, members=tuple(replace(one, weight=0.0) for one in ensemble.members)
    )
    np.testing.assert_allclose(unweighed.logits(recorded.outputs), (one + other) / 2, rtol=1e-5)


def test_nothing_is_predicted_from_nothing() -> None:
    ensemble, recorded = small()
    with pytest.raises(SettingsError, match="predicted from class, count, and none"):
        ensemble.predict({"box": recorded.outputs["box"]})


def test_what_does_not_fit_is_refused() -> None:
    ensemble, _ = small()
    with pytest.raises(SettingsError, match="at least one"):
        Ensemble("tags", SPECS["tags"], ())
    with pytest.raises(SettingsError, match="another output"):
        Ensemble("box", SPECS["box"], ensemble.members)
    with pytest.raises(SettingsError, match="expected 0 or more"):
        replace(ensemble, members=(replace(ensemble.members[0], weight=-1.0),))
    with pytest.raises(SettingsError, match="two links disagree"):
        replace(
            ensemble, members=tuple(replace(one, source="both") for one in ensemble.members)
        )


def test_sources_are_left_out_while_weights_are_learnt() -> None:
    """A good link and its bad copy: the good one leads; with no error both weigh the same."""
    said = linked(80).outputs["class"]
    right = np.log(said)
    wrong = np.roll(right, 1, axis=1)
    weights = weigh(SPECS["class"], np.stack([right, wrong]), said, Recipe())
    assert sum(weights) == pytest.approx(1.0)
    assert weights[0] > 0.9
    same = weigh(SPECS["class"], np.stack([right, right]), said, Recipe())
    assert same == pytest.approx((0.5, 0.5), abs=0.05)


def test_a_local_and_a_global_link_share_a_source() -> None:
    recorded = linked(120)
    design = LinkDesign(SPECS["count"], SPECS["tags"])
    ensemble, _ = small()
    poor = replace(ensemble.members[1], source="count")
    good = train_links(recorded.part(np.arange(60)), SHORT, pairs=[("count", "tags")])["tags"]
    held = recorded.part(np.arange(60, 120))
    assert good.members[0].link.design == design
    made = joined_ensemble(
        "tags", [poor, good.members[0]], held.outputs, held.outputs["tags"], SHORT
    )
    assert made.members[1].weight > 0.8
    said = held.outputs["tags"]
    alone = agreement(SPECS["tags"], good.predict(held.outputs).outputs, said).mean()
    assert made.expected >= alone - 1e-6
    assert agreement(SPECS["tags"], poor.link.predict(held.outputs["count"]), said).mean() < 0.4


def test_every_pair_is_linked_once() -> None:
    recorded = linked(16).models(["class", "tags", "count"])
    seen = []
    made = train_links(recorded, Recipe(epochs=1, folds=2),
                       on_link=lambda pair, _: seen.append(pair))  # fmt: skip
    assert sorted(seen) == sorted(all_pairs(recorded))
    assert {name: sorted(one.sources) for name, one in made.items()} == {
        "class": ["count", "tags"],
        "tags": ["class", "count"],
        "count": ["class", "tags"],
    }
    with pytest.raises(SettingsError, match="to itself"):
        train_links(recorded, SHORT, pairs=[("tags", "tags")])
    with pytest.raises(SettingsError, match="no outputs of 'cat'"):
        train_links(recorded, SHORT, pairs=[("cat", "tags")])


def test_links_are_read_as_they_were_written(tmp_path: Path) -> None:
    ensemble, recorded = small()
    save_links(ensemble, tmp_path / "tags")
    again = open_links(tmp_path / "tags")
    assert is_link(tmp_path / "tags")
    assert (again.name, again.target, again.sources) == (
        "tags",
        SPECS["tags"],
        ensemble.sources,
    )
    np.testing.assert_array_equal(
        again.predict(recorded.outputs).outputs, ensemble.predict(recorded.outputs).outputs
    )
    assert (tmp_path / "tags" / WEIGHTS_FILE).stat().st_mode & 0o077 == 0
    save_links(again, tmp_path / "tags")
    (tmp_path / "other").mkdir()
    with pytest.raises(SettingsError, match="holds no links"):
        save_links(ensemble, tmp_path / "other")


def test_changed_folders_are_refused(tmp_path: Path) -> None:
    ensemble, _ = small()
    folder = tmp_path / "tags"
    save_links(ensemble, folder)
    document, weights = (folder / LINK_FILE).read_bytes(), (folder / WEIGHTS_FILE).read_bytes()
    changes = [
        (b'"task":"multi-label"', b'"task":"many-labels"', ManifestError),
        (b'"form":"network"', b'"form":"identity"', ManifestError),
        (b'"form":"network"', b'"form":"conv"', ManifestError),
        (b'"hidden":0', b'"hidden":3', CheckpointError),
        (b'"weight":"1.0"', b'"weight":"-1.0"', ManifestError),
        (b'"weight":"1.0"', b'"weight":"nan"', ManifestError),
        (b'"source":"class"', b'"source":"../class"', ManifestError),
        (b'"expected":"0.5"', b'"expected":"1.5"', ManifestError),
        (b'"width":4', b'"width":5', ManifestError),
        (b'"format_version":1', b'"format_version":2', Exception),
    ]
    for old, new, error in changes:
        assert old in document
        (folder / LINK_FILE).write_bytes(document.replace(old, new, 1))
        with pytest.raises(error):
            open_links(folder)
    (folder / LINK_FILE).write_bytes(document)
    (folder / WEIGHTS_FILE).write_bytes(weights.replace(b"0.hidden.bias", b"9.hidden.bias"))
    with pytest.raises(CheckpointError):
        open_links(folder)
    (folder / WEIGHTS_FILE).write_bytes(weights[:-4])
    with pytest.raises(FileTypeError):
        open_links(folder)
    (folder / WEIGHTS_FILE).write_bytes(weights[:-4] + b"\x00\x00\xc0\x7f")
    with pytest.raises(CheckpointError, match="finite"):
        open_links(folder)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    open_links(folder)
