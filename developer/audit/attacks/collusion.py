"""Collusion of one user: a bundle opens all traffic of its cohort, and the model with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from triparty.common.keying import Bundle
from triparty.developer.answers import task_of
from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Function, Tokens
from triparty.developer.audit.controls import rotated
from triparty.developer.audit.knowledge import Knowledge, given
from triparty.developer.audit.levels import Level
from triparty.developer.audit.matching import as_is, match
from triparty.developer.audit.scene import keyed_table

_ASKED = 64


class Collusion:
    """Looks the rows of everybody up in the bundle of one."""

    name = "collusion"
    level = Level.K4
    target = Target.TOKENS
    cites = "thesis 4.4: parties are assumed not to collude"
    means = "One user who helps the cloud opens the questions of the whole cohort."
    remedy = "Small cohorts, or an instance for each device: the bundle of another opens none."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs a bundle and traffic."""
        if knowledge.bundle is None or knowledge.hosted is None or not knowledge.traffic:
            return "there is no traffic to open"
        return None

    def mount(self, knowledge: Knowledge) -> Tokens:
        """The token behind each row, as the bundle's table has it."""
        table = keyed_table(given(knowledge.bundle), given(knowledge.hosted))
        return match(knowledge.traffic, table, as_is)

    def control(self, knowledge: Knowledge) -> Knowledge:
        """The traffic of another cohort, which has another key."""
        return replace(knowledge, traffic=rotated(knowledge.traffic))


class CollusionFunction:
    """Asks the hosted model through the bundle."""

    name = "collusion-function"
    level = Level.K4
    target = Target.FUNCTION
    cites = "model functionality leakage: STIP, NDSS"
    means = "The cloud with one user's bundle has the whole model to use and to copy."
    remedy = "A head that stays on the device, or trusted execution; a contract."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs a bundle, and the model for it."""
        if knowledge.bundle is None or knowledge.hosted is None:
            return "there is no bundle or no model"
        return None

    def mount(self, knowledge: Knowledge) -> Function:
        """Answers of the hosted model to random texts, read with the bundle."""
        bundle = given(knowledge.bundle)
        task = task_of(bundle.info.task)
        sample = task.sample(bundle.info, _ASKED, np.random.default_rng(0))
        model = given(knowledge.hosted).load(task.auto_class)
        return Function(sample, np.asarray(task.protected(model, bundle, sample)))

    def control(self, knowledge: Knowledge) -> Knowledge:
        """The bundle of another cohort."""
        return replace(knowledge, bundle=_of_another_cohort(given(knowledge.bundle)))


def _of_another_cohort(bundle: Bundle) -> Bundle:
    """A bundle whose rows, or whose ids, have another order."""
    order = np.random.default_rng(0).permutation(bundle.info.width)
    ids = np.random.default_rng(1).permutation(bundle.info.vocabulary)
    return replace(
        bundle,
        _tables={name: np.asarray(bits)[:, order] for name, bits in bundle._tables.items()},
        _order=bundle._order[ids],
    )
