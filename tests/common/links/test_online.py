"""Asking: never above the budget, where there is most to learn; a link follows what changes."""

from __future__ import annotations

import numpy as np
import pytest
from linked_outputs import SPECS

from triparty.common.errors import DatasetError, SettingsError
from triparty.common.links.asking import (
    RULES,
    Asking,
    Controller,
    Rule,
    output_variance,
    uncertainty,
)
from triparty.common.links.design import LinkDesign
from triparty.common.links.metrics import agreement
from triparty.common.links.recipe import Recipe
from triparty.common.links.specs import Vec

pytest.importorskip("torch")
from triparty.common.links.loss_head import fit_loss_head
from triparty.common.links.online import OnlineLink
from triparty.common.links.training import fit_link

COUNT = Vec("regression", 1, tolerance=0.5)
SHORT = Recipe(epochs=20, folds=2)


@pytest.mark.parametrize("rule", RULES)
def test_the_budget_is_used_and_never_exceeded(rule: Rule) -> None:
    rng = np.random.default_rng(0)
    controller = Controller(Asking(50, 5, rule))
    asked = np.array([controller.wants(score) for score in rng.random(1000)])
    per_period = asked.reshape(20, 50).sum(1)
    assert per_period.max() <= 5
    assert per_period[1:].min() >= 4


def test_high_scores_are_asked_about() -> None:
    """A tenth of the inputs score high: with as large a budget most of them are asked."""
    rng = np.random.default_rng(1)
    scores = np.where(rng.random(2000) < 0.1, 1.0, 0.0) + rng.random(2000) * 0.1
    picked = {}
    for rule in ("periodic", "uncertainty"):
        controller = Controller(Asking(100, 10, rule, explored=0.0))
        asked = np.array([controller.wants(score) for score in scores])[100:]
        picked[rule] = (scores[100:][asked] > 0.5).mean()
    assert picked["uncertainty"] > 0.6
    assert picked["periodic"] < 0.25


def test_a_share_is_spread_evenly() -> None:
    controller = Controller(Asking(100, 10, "uncertainty", explored=0.5))
    asked = np.flatnonzero([controller.wants(0.0) for _ in range(90)])
    assert asked.tolist() == [0, 20, 40, 60, 80]


def test_budgets_that_cannot_be_are_refused() -> None:
    for build in (
        lambda: Asking(10, 11),
        lambda: Asking(10, 0),
        lambda: Asking(10, 1, "always"),  # type: ignore[arg-type]
        lambda: Asking(10, 1, explored=2.0),
    ):
        with pytest.raises(SettingsError):
            build()


def test_uncertainty_is_entropy_or_variance() -> None:
    spec = Vec("single-label", 4)
    logits = np.array([[0, 0, 0, 0], [9, 0, 0, 0]], np.float32)
    flat, sure = uncertainty(spec, logits)
    assert flat == pytest.approx(1.0, abs=1e-6)
    assert sure < 0.01
    flat, sure = uncertainty(Vec("multi-label", 2), np.array([[0, 0], [9, -9]], np.float32))
    assert flat == pytest.approx(1.0, abs=1e-6)
    assert sure < 0.01
    several = np.array([[[1.0], [2.0]], [[1.0], [4.0]]], np.float32)
    assert output_variance(COUNT, several).tolist() == [0.0, 1.0]
    with pytest.raises(SettingsError, match="variance between several"):
        uncertainty(COUNT, logits)
    with pytest.raises(SettingsError, match="two or more"):
        output_variance(COUNT, several[:1])


def test_a_head_knows_where_a_link_is_wrong() -> None:
    """The target is noise where the source is above 0: the head scores those higher."""
    rng = np.random.default_rng(2)
    source = rng.uniform(-1, 1, (300, 1)).astype(np.float32)
    said = np.where(source > 0, rng.normal(0, 3, source.shape), 0.0).astype(np.float32)
    design = LinkDesign(Vec("regression", 1), COUNT)
    link = fit_link(design, source[:200], said[:200], SHORT).link
    head = fit_loss_head(link, source[:200], said[:200])
    scores = head.predict(link, source[200:])
    wrong = source[200:, 0] > 0
    assert np.median(scores[wrong]) > np.median(scores[~wrong])
    higher = (scores[wrong][:, None] > scores[~wrong][None]).mean()
    assert higher > 0.75
    with pytest.raises(DatasetError, match="4 rows or more"):
        fit_loss_head(link, source[:3], said[:3])


@pytest.mark.parametrize("rule", RULES)
def test_a_link_follows_what_changes(rule: Rule) -> None:
    """The target is the source at first, and then five less: a tenth of answers mends it."""
    rng = np.random.default_rng(3)
    source = rng.integers(0, 6, (260, 1)).astype(np.float32)
    said = source - 5 * (np.arange(260) >= 80)[:, None].astype(np.float32)
    design = LinkDesign(Vec("regression", 1), COUNT)
    first = fit_link(design, source[:60], said[:60], Recipe(epochs=100, folds=2)).link
    online = OnlineLink(first, Asking(50, 10, rule), SHORT, memory=20)
    told, asked = [], 0
    for row in range(60, 260):
        output, answer = source[row : row + 1], said[row : row + 1]
        told.append(online.predict(output))
        if online.wants(output):
            asked += 1
            online.learn(output, answer)
    late = agreement(COUNT, np.concatenate(told)[-60:], said[-60:]).mean()
    assert agreement(COUNT, first.predict(source[:60]), said[:60]).mean() > 0.9
    assert agreement(COUNT, first.predict(source[-60:]), said[-60:]).mean() < 0.1
    assert late > 0.7
    assert asked <= 4 * 10


def test_sequences_do_not_learn_online() -> None:
    from triparty.common.links.link import Link

    design = LinkDesign(SPECS["class"], SPECS["words"])
    weights = {name: np.ones(shape) for name, shape in design.shapes.items()}
    with pytest.raises(SettingsError, match="learns offline"):
        OnlineLink(Link(design, weights), Asking(10, 1), SHORT)
