"""The law of an encoder: `FamilyLaw` with texts that are padded and have types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from family_law import FamilyLaw, transform_of
from numpy.typing import NDArray

from triparty.common.keying import Bundle
from triparty.developer.answers import Task, task_of
from triparty.developer.answers.encoders import (
    Passages,
    keyed_passages,
    outputs_of,
    random_ids,
)
from triparty.developer.protect import Survey
from triparty.developer.stock import load_model


class EncoderLaw(FamilyLaw):
    """Inherit from this, in a class whose name begins with `Test`.

    Attributes:
        attends_everywhere: whether some tokens attend to all others, the rest to neighbours.
    """

    attends_everywhere: ClassVar[bool] = False
    # No encoder writes text.
    test_a_cache_and_greedy_generation_change_nothing = None  # type: ignore[assignment]

    def samples(self, task: Task, found: Survey) -> Iterator[Passages]:
        """Texts of one length, of several, and of one token, with every type in them."""
        rng, info = np.random.default_rng(3), found.info
        longest = min(14, info.max_positions)
        for cuts in ([0, 0, 0], [0, longest // 3, longest // 2], [longest - 1, 0, 1]):
            mask = np.arange(longest)[None] < longest - np.array(cuts)[:, None]
            types = rng.integers(0, found.plan.spaces["types"].size, mask.shape)
            everywhere = rng.random(mask.shape) < 0.25
            yield Passages(
                random_ids(info, mask, rng),
                mask,
                types,
                everywhere if self.attends_everywhere else None,
            )

    def hidden_states(
        self, source: Path, out: Path, found: Survey
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        task = task_of(found.plan.task)
        original = load_model(source, task.auto_class)
        hosted = load_model(out / "model", task.auto_class)
        residual = transform_of(found, out, "residual")
        sample = next(self.samples(task, found))
        inputs = {"input_ids": sample.ids, "token_type_ids": sample.types}
        keyed_inputs = keyed_passages(Bundle.open(out / "device"), sample)
        plain, keyed = (
            outputs_of(model, sample, given, output_hidden_states=True).hidden_states
            for model, given in ((original, inputs), (hosted, keyed_inputs))
        )
        assert len(plain) == len(keyed) > 2
        for before, after in zip(plain, keyed, strict=True):
            yield before.numpy(), after.numpy() @ residual
