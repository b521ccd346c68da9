"""The links that a federation begins with (torch): scaled by the developer's own sample."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from triparty.common.federated_links import FederatedLinks, NamedLink
from triparty.common.links.design import default_design
from triparty.common.links.networks import LinkNetwork
from triparty.common.links.recorded import Recorded
from triparty.common.links.training import first_weights


def first_links(
    sample: Recorded, pairs: Iterable[tuple[str, str]], seed: int
) -> tuple[FederatedLinks, list[dict[str, Any]]]:
    """Links and their first weights.

    Every site must scale outputs alike, so the scaling is the developer's: of a sample of its
    own, never of what sites have.

    Args:
        sample: recorded outputs of the developer.
        pairs: source and target of each link.
        seed: of what is drawn.

    Raises:
        SettingsError: a model that was not recorded.
    """
    links, weights = [], []
    for source, target in pairs:
        recorded = sample.models([source, target])
        design = default_design(recorded.specs[source], recorded.specs[target])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = LinkNetwork(design)
        scaled = first_weights(design, recorded.outputs[source], recorded.outputs[target])
        links.append(NamedLink(source, target, design))
        weights.append({**network.weights(), **scaled})
    return FederatedLinks(tuple(links)), weights
