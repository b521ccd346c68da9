"""A link that follows its inputs: asks about some of them, learns, and goes on (torch).

At the end of each period the link is trained again on the latest answers. What it was trained
with before is forgotten with the answers that leave the memory: inputs of yesterday say little
of those of today (thesis 5.3.1).
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final

import numpy as np

from triparty.common.errors import SettingsError
from triparty.common.links.asking import Asking, Controller, output_variance, uncertainty
from triparty.common.links.link import Link
from triparty.common.links.loss_head import LossHead, fit_loss_head
from triparty.common.links.recipe import LEAST_ROWS, Recipe
from triparty.common.links.specs import Outputs, Vec
from triparty.common.links.training import fit_link

MEMORY: Final = 150  # answers that are learnt from
COMMITTEE: Final = 3  # links whose variance is the uncertainty of numbers and boxes


class OnlineLink:
    """A link to a vector, and what it is taught.

    Args:
        link: to begin with.
        asking: budget and rule.
        recipe: of every training.
        memory: answers that are learnt from, the latest.

    Raises:
        SettingsError: a link to a sequence.
    """

    def __init__(
        self, link: Link, asking: Asking, recipe: Recipe, *, memory: int = MEMORY
    ) -> None:
        """Has learnt nothing yet but the link."""
        target = link.design.target
        if not isinstance(target, Vec):
            raise SettingsError("a link to a sequence has one output only: it learns offline")
        self.link, self._target = link, target
        self._asking, self._recipe = asking, recipe
        self._controller = Controller(asking)
        self._answers: deque[tuple[Outputs, Outputs]] = deque(maxlen=memory)
        self._committee: tuple[Link, ...] = ()
        self._head: LossHead | None = None
        self._seen, self._is_new = 0, False

    def wants(self, output: Outputs) -> bool:
        """Whether the target should be run on the next input too; then `learn` what it says.

        Args:
            output: (1, ...) of the source on it.
        """
        if self._seen and self._seen % self._asking.period == 0 and self._is_new:
            self._update()
        self._seen += 1
        return self._controller.wants(self._score(output))

    def learn(self, output: Outputs, said: Outputs) -> None:
        """Takes what the target said.

        Args:
            output: (1, ...) of the source.
            said: (1, width) of the target on the same input.
        """
        self._answers.append((output, said))
        self._is_new = True

    def predict(self, outputs: Outputs) -> Outputs:
        """(n, width) what the target would say."""
        return self.link.predict(outputs)

    def _score(self, output: Outputs) -> float:
        """How much there may be to learn from an input."""
        rule = self._asking.rule
        if rule == "predicted-loss" and self._head is not None:
            return float(self._head.predict(self.link, output)[0])
        if rule != "uncertainty":
            return 0.0
        if self._target.task in ("single-label", "multi-label"):
            return float(uncertainty(self._target, self.link.logits(output))[0])
        if not self._committee:
            return 0.0
        several = np.stack([one.logits(output) for one in (self.link, *self._committee)])
        return float(output_variance(self._target, several)[0])

    def _update(self) -> None:
        if len(self._answers) < LEAST_ROWS:
            return
        source = np.concatenate([one for one, _ in self._answers])
        said = np.concatenate([one for _, one in self._answers])
        design, self._is_new = self.link.design, False
        self.link = fit_link(design, source, said, self._recipe).link
        if self._asking.rule == "predicted-loss":
            self._head = fit_loss_head(self.link, source, said, seed=self._recipe.seed)
        is_counted = self._target.task in ("regression", "localisation")
        if self._asking.rule == "uncertainty" and is_counted:
            self._committee = self._drawn(source, said)

    def _drawn(self, source: Outputs, said: Outputs) -> tuple[Link, ...]:
        """Links that each learnt from another draw of the answers."""
        rng = np.random.default_rng(self._recipe.seed + self._seen)
        made = []
        for number in range(1, COMMITTEE):
            rows = rng.integers(len(source), size=len(source))
            recipe = replace(self._recipe, seed=self._recipe.seed + number)
            made.append(fit_link(self.link.design, source[rows], said[rows], recipe).link)
        return tuple(made)
