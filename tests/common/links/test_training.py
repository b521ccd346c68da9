"""Links learn what there is to learn, do no harm where there is nothing, and come again."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from linked_outputs import CLASSES, SPECS, linked

from triparty.common.errors import DatasetError, SettingsError
from triparty.common.links.design import LinkDesign, default_design
from triparty.common.links.link import no_link
from triparty.common.links.metrics import score
from triparty.common.links.recipe import Recipe
from triparty.common.links.specs import Vec

pytest.importorskip("torch")
from triparty.common.links.losses import row_losses
from triparty.common.links.networks import LinkNetwork, network_inputs
from triparty.common.links.training import first_weights, fit_link

VECTORS = [name for name, spec in SPECS.items() if isinstance(spec, Vec)]
SHORT = Recipe(epochs=60, folds=2)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("class", "moved"),
        ("moved", "box"),
        ("box", "tags"),
        ("tags", "size"),
        ("words", "tags"),
    ],
)
def test_a_link_learns_from_forty_rows(source: str, target: str) -> None:
    whole = linked(240)
    spec, said = SPECS[target], whole.outputs[target]
    design = LinkDesign(SPECS[source], spec)
    fitted = fit_link(design, whole.outputs[source][:40], said[:40], SHORT)
    judged = score(spec, fitted.link.predict(whole.outputs[source][40:]), said[40:])
    assert judged.share > 0.75
    assert fitted.agreement > fitted.floor
    assert not fitted.is_kept_back


@pytest.mark.slow
@pytest.mark.parametrize("source", ["class", "words"])
def test_a_link_learns_to_write(source: str) -> None:
    whole = linked(200)
    design = LinkDesign(SPECS[source], SPECS["words"])
    fitted = fit_link(design, whole.outputs[source][:100], whole.outputs["words"][:100], SHORT)
    found = fitted.link.predict(whole.outputs[source][100:])
    assert score(SPECS["words"], found, whole.outputs["words"][100:]).value < 0.1


@pytest.mark.parametrize("target", ["class", "tags", "count"])
def test_where_there_is_nothing_to_learn_it_stays_the_constant(target: str) -> None:
    """Noise tells nothing: the guard keeps what the link began as."""
    rng = np.random.default_rng(6)
    noise = rng.normal(size=(60, 3)).astype(np.float32)
    said = linked(60, seed=1).outputs[target]
    design = LinkDesign(Vec("regression", 3), SPECS[target])
    fitted = fit_link(design, noise, said, SHORT)
    assert fitted.is_kept_back
    assert fitted.agreement == fitted.floor
    told = fitted.link.predict(rng.normal(size=(50, 3)).astype(np.float32))
    assert np.ptp(told, axis=0).max() < 1e-6


def test_a_link_between_equal_labels_does_no_harm() -> None:
    """Labels that a source already gives right: no link is best, and the guard keeps it."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(CLASSES, 0.5), 120).astype(np.float32)
    truth = np.array([rng.multinomial(1, one) for one in shares], np.float32)
    design = default_design(SPECS["class"], SPECS["moved"])
    fitted = fit_link(design, shares, truth, SHORT)
    assert fitted.is_kept_back
    np.testing.assert_allclose(fitted.link.predict(shares), no_link(design).predict(shares))
    moved = fit_link(design, shares, np.roll(shares, 1, axis=1), SHORT)
    assert not moved.is_kept_back
    assert moved.agreement > moved.floor + 0.5


def test_the_same_seed_gives_the_same_link() -> None:
    whole = linked(40)
    design = LinkDesign(SPECS["class"], SPECS["tags"])
    made = [
        fit_link(
            design, whole.outputs["class"], whole.outputs["tags"], Recipe(epochs=4, seed=s)
        )
        for s in (1, 1, 2)
    ]
    one, again, other = (fitted.link.weights["output.weight"] for fitted in made)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_training_goes_on_from_weights_and_their_scaling() -> None:
    whole = linked(80)
    source, said = whole.outputs["class"], whole.outputs["size"]
    design = LinkDesign(SPECS["class"], SPECS["size"])
    first = fit_link(design, source[:40], said[:40], SHORT).link
    again = fit_link(design, source[40:], 10 + said[40:], SHORT, start=first.weights)
    for name in set(design.shapes) - set(design.trained):
        np.testing.assert_array_equal(again.link.weights[name], first.weights[name])
    assert not np.array_equal(again.link.weights["output.bias"], first.weights["output.bias"])
    kept = fit_link(
        design, source[40:], said[40:], Recipe(epochs=1, rate=1e-9), start=first.weights
    )
    np.testing.assert_allclose(kept.link.predict(source), first.predict(source), atol=1e-5)


@pytest.mark.parametrize(("source", "target"), [*product(["class", "words"], VECTORS)])
def test_an_untrained_link_is_the_constant(source: str, target: str) -> None:
    whole = linked(50)
    spec, said = SPECS[target], whole.outputs[target]
    design = LinkDesign(SPECS[source], spec)
    weights = {**LinkNetwork(design).weights(),
               **first_weights(design, whole.outputs[source], said)}  # fmt: skip
    from triparty.common.links.features import constant
    from triparty.common.links.link import Link

    told = Link(design, weights).predict(whole.outputs[source])
    still = np.broadcast_to(constant(spec, said), said.shape)
    np.testing.assert_allclose(told, still, atol=1e-4)


@pytest.mark.parametrize("target", VECTORS)
def test_the_loss_is_lowest_at_the_truth(target: str) -> None:
    """No drawn logits lose less than those whose output is what the model said."""
    import torch

    spec, said = SPECS[target], linked(30).outputs[target]
    assert isinstance(spec, Vec)
    wanted = torch.from_numpy(said)
    clipped = wanted.clamp(1e-4, 1 - 1e-4)
    right = {
        "single-label": clipped.log(),
        "multi-label": torch.logit(clipped),
        "regression": wanted,
        "localisation": torch.cat([torch.logit(clipped[:, :1]), wanted[:, 1:]], dim=1),
    }[spec.task]
    best = row_losses(spec, right, wanted)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        other = right + 5 * torch.randn(right.shape, generator=generator)
        assert (row_losses(spec, other, wanted) >= best - 2e-4).all()
        assert row_losses(spec, other, wanted).mean() > best.mean() + 0.01


def test_a_sequence_loses_by_its_words_and_its_end() -> None:
    import torch

    spec, said = SPECS["words"], linked(8).outputs["words"]
    design = LinkDesign(SPECS["class"], spec)
    network = LinkNetwork(design).eval()
    wanted = torch.from_numpy(said)
    logits = network(network_inputs(design, linked(8).outputs["class"]), wanted)
    likely = torch.full_like(logits, -9.0)
    for row, tokens in enumerate(said):
        words = [*tokens[tokens >= 0].tolist(), 5]
        for place, word in enumerate(words):
            likely[row, place, word] = 9.0
    assert (row_losses(spec, likely, wanted) < 1e-5).all()
    unended = likely.clone()
    unended[0, int((said[0] >= 0).sum()), 5] = -9.0
    assert row_losses(spec, unended, wanted)[0] > 0.3


def test_too_few_or_misaligned_rows_are_refused() -> None:
    whole = linked(20)
    design = LinkDesign(SPECS["class"], SPECS["tags"])
    with pytest.raises(DatasetError, match="at least 8 rows"):
        fit_link(design, whole.outputs["class"][:7], whole.outputs["tags"][:7], SHORT)
    with pytest.raises(DatasetError, match="got 20 and 19"):
        fit_link(design, whole.outputs["class"], whole.outputs["tags"][:19], SHORT)
    with pytest.raises(SettingsError, match="a rate above 0"):
        Recipe(rate=0)
    with pytest.raises(SettingsError, match="folds"):
        Recipe(folds=1)
    with pytest.raises(SettingsError, match="left out"):
        Recipe(source_dropout=1.0)
