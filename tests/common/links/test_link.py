"""A link in NumPy is the trained network, for every pair of outputs, one row or many."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from linked_outputs import SPECS, linked

from triparty.common.errors import CheckpointError, SettingsError
from triparty.common.links.design import LinkDesign, default_design
from triparty.common.links.link import Link, no_link
from triparty.common.links.specs import PAD, Seq, Vec

torch = pytest.importorskip("torch")
from triparty.common.links.networks import LinkNetwork, network_inputs  # noqa: E402

VECTORS = [name for name, spec in SPECS.items() if isinstance(spec, Vec)]


def drawn(design: LinkDesign, seed: int = 0) -> dict[str, Any]:
    """Weights that no training would leave at 0."""
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(0, 0.5, shape) for name, shape in design.shapes.items()}
    return {
        name: (np.abs(one) + 0.1 if name.endswith(".scale") else one).astype(np.float32)
        for name, one in made.items()
    }


def network(design: LinkDesign, weights: dict[str, Any]) -> Any:
    made = LinkNetwork(design)
    made.load(weights)
    return made.eval()


@pytest.mark.parametrize(("source", "target"), [*product(SPECS, VECTORS)])
def test_logits_are_those_of_torch(source: str, target: str) -> None:
    outputs = linked(16).outputs[source]
    design = LinkDesign(SPECS[source], SPECS[target])
    weights = drawn(design)
    link = Link(design, weights)
    with torch.no_grad():
        wanted = network(design, weights)(network_inputs(design, outputs)).numpy()
    np.testing.assert_allclose(link.logits(outputs), wanted, atol=2e-5)
    alone = np.concatenate([link.logits(outputs[row : row + 1]) for row in range(16)])
    np.testing.assert_allclose(alone, wanted, atol=2e-5)


@pytest.mark.parametrize("source", SPECS)
def test_sequences_are_those_of_torch(source: str) -> None:
    """Told its own words, torch's decoder finds each the likeliest, the end included."""
    outputs, target = linked(16).outputs[source], SPECS["words"]
    assert isinstance(target, Seq)
    design = LinkDesign(SPECS[source], target)
    lengths = set()
    for seed in range(4):
        weights = drawn(design, seed)
        weights["output.bias"][target.end] += 2.0 * (seed % 2)  # some sequences end early
        decoded = Link(design, weights).decode(outputs)
        with torch.no_grad():
            told = torch.from_numpy(decoded.tokens)
            logits = network(design, weights)(network_inputs(design, outputs), told)
        wanted = logits.argmax(2).numpy()
        logs = logits.log_softmax(2).max(2).values.numpy()
        for row, tokens in enumerate(decoded.tokens):
            words = tokens[tokens != PAD].tolist()
            ended = [*words, *([target.end] if len(words) < target.length else [])]
            lengths.add(len(words))
            assert wanted[row][: len(ended)].tolist() == ended
            mean = np.exp(logs[row][: len(ended)].mean())
            assert decoded.confidence[row] == pytest.approx(mean, abs=1e-4)
    assert len(lengths) > 1


def test_padding_of_a_source_changes_nothing() -> None:
    short = np.array([[1, 2, PAD, PAD], [3, PAD, PAD, PAD]])
    for target in ("class", "words"):
        design = LinkDesign(Seq(5, 4), SPECS[target])
        link = Link(design, drawn(design))
        one = link.predict(short[1:])
        np.testing.assert_allclose(link.predict(short)[1:], one, atol=1e-6)
    longer = LinkDesign(Seq(5, 9), SPECS["class"])
    design = LinkDesign(Seq(5, 4), SPECS["class"])
    weights = drawn(design)
    padded = np.concatenate([short, np.full((2, 5), PAD)], axis=1)
    np.testing.assert_allclose(
        Link(longer, weights).logits(padded), Link(design, weights).logits(short), atol=1e-6
    )


def test_an_identity_link_begins_as_no_link() -> None:
    shares = linked(20).outputs["class"]
    design = default_design(SPECS["class"], SPECS["moved"])
    assert design.form == "identity"
    np.testing.assert_allclose(no_link(design).predict(shares), shares, atol=1e-6)
    began = Link(design, LinkNetwork(design).weights())
    np.testing.assert_allclose(began.predict(shares), shares, atol=1e-6)
    assert default_design(SPECS["class"], SPECS["tags"]).form == "network"


def test_hidden_layers_are_twice_the_output() -> None:
    assert LinkDesign(SPECS["class"], Vec("multi-label", 20)).width == 40
    assert LinkDesign(SPECS["class"], Vec("multi-label", 2000)).width == 256
    assert LinkDesign(SPECS["class"], SPECS["count"]).width == 8
    assert LinkDesign(SPECS["class"], SPECS["count"], hidden=3).width == 3
    kinds = {LinkDesign(SPECS[one], SPECS[other]).kind for one, other in product(SPECS, SPECS)}
    assert kinds == {"vec-to-vec", "vec-to-seq", "seq-to-vec", "seq-to-seq"}


def test_weights_of_another_link_are_refused() -> None:
    design = LinkDesign(SPECS["class"], SPECS["size"])
    weights = drawn(design)
    Link(design, weights)
    with pytest.raises(CheckpointError, match=r"'output\.bias' .* missing or unknown"):
        Link(design, {k: v for k, v in weights.items() if k != "output.bias"})
    with pytest.raises(CheckpointError, match="missing or unknown"):
        Link(design, {**weights, "more": weights["output.bias"]})
    for name, value in [
        ("output.bias", np.array([1.0, np.nan], np.float32)),
        ("output.bias", np.zeros(3, np.float32)),
        ("output.bias", np.zeros(2, np.int64)),
    ]:
        with pytest.raises(CheckpointError, match=f"'{name}' .* finite numbers of shape"):
            Link(design, {**weights, name: value})
    with pytest.raises(CheckpointError, match="must be above 0"):
        Link(design, {**weights, "source.scale": np.zeros(4, np.float32)})
    with pytest.raises(SettingsError, match="same labels"):
        LinkDesign(SPECS["class"], SPECS["tags"], "identity")
