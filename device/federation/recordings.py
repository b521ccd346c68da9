"""A site's learner: links trained on the outputs that this site recorded (torch)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from triparty.common.errors import FederationError, StateError
from triparty.common.federated_links import FederatedLinks, NamedLink
from triparty.common.federation import Task, Weights
from triparty.common.links.recorded import Recorded
from triparty.device.federation.learner import Trained
from triparty.device.federation.supernode import DATA

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class RecordedLearner:
    """Trains links on recorded outputs, from the weights that it is given.

    Attributes:
        recorded: outputs of this site's models on the same inputs.
    """

    recorded: Recorded

    def train(self, weights: Weights, task: Task) -> Trained:
        """Goes on from weights by plain steps: no dropout, no guard.

        Raises:
            FederationError: a link between models that were not recorded here, or whose outputs
                are something else here.
        """
        links = FederatedLinks.of_text(task.spec)
        fixed = {name: np.array(value, np.float32) for name, value in task.fixed.items()}
        parts = links.join(weights, fixed)
        trained, losses = [], []
        for link, part in zip(links.links, parts, strict=True):
            made, loss = self._train(link, part, task)
            trained.append(made)
            losses.append(loss)
        changed, _ = links.split([*trained])
        return Trained(changed, len(self.recorded), float(np.mean(losses)))

    def _train(self, link: NamedLink, weights: Weights, task: Task) -> tuple[Weights, float]:
        import torch

        from triparty.common.links.losses import row_losses
        from triparty.common.links.networks import LinkNetwork, network_inputs
        from triparty.common.links.specs import Seq

        for name, output in (
            (link.source, link.design.source),
            (link.target, link.design.target),
        ):
            if self.recorded.specs.get(name) != output:
                raise FederationError(
                    f"this site has recorded no outputs of '{name}', or of another kind"
                )
        network = LinkNetwork(link.design)
        network.load(weights)
        network.train()
        inputs = network_inputs(link.design, self.recorded.outputs[link.source])
        said = torch.from_numpy(self.recorded.outputs[link.target])
        is_sequence = isinstance(link.design.target, Seq)
        has_scale = "target.scale" in link.design.shapes
        scale = network["target.scale"] if has_scale else None
        kind = torch.optim.SGD if task.optimizer == "sgd" else torch.optim.Adam
        optimizer = kind(network.parameters(), lr=task.rate)
        loss = 0.0
        for is_last, rows in _batches(len(said), task):
            optimizer.zero_grad()
            logits = network(inputs[rows], said[rows] if is_sequence else None)
            mean = row_losses(link.design.target, logits, said[rows], scale).mean()
            torch.autograd.backward(mean)
            optimizer.step()
            if is_last:
                loss += float(mean.detach()) * len(rows) / len(said)
        return network.weights(), loss


def learner_of(node_config: Mapping[str, object]) -> RecordedLearner:
    """The learner over the folder that the site itself named.

    Raises:
        StateError: it named none.
        ManifestError, SettingsError, DatasetError: no recorded outputs there.
    """
    folder = node_config.get(DATA)
    if not isinstance(folder, str):
        raise StateError("this node was started without its data")
    return RecordedLearner(Recorded.open(Path(folder)))


def _batches(count: int, task: Task) -> Iterator[tuple[bool, torch.Tensor]]:
    """Rows of each step, and whether it is of the last pass."""
    import torch

    generator = torch.Generator().manual_seed(task.seed)
    for epoch in range(task.epochs):
        is_last = epoch == task.epochs - 1
        if not task.batch:
            yield is_last, torch.arange(count)
            continue
        for rows in torch.split(torch.randperm(count, generator=generator), task.batch):
            yield is_last, rows
