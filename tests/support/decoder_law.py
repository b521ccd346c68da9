"""The law of decoders whose device may have the head.

Law: what the device's head makes of the hidden state that the stock class computes from the
hosted folder are the original's logits; the hosted head is nothing but zeros, and the head of
another key breaks the law.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from family_law import EXACT, FamilyLaw, in_float64, values_of

from triparty.common.keying import HEAD_FILE, Bundle
from triparty.developer.protect import Choices, Survey, protect
from triparty.developer.stock import load_model
from triparty.developer.verify import original_greedy, protected_greedy

HEAD = "lm_head.weight"


class DecoderLaw(FamilyLaw):
    """The law of a family with a head over the vocabulary, wherever the head is."""

    def test_the_devices_head_answers_what_the_original_does(
        self, scheme: str, tmp_path: Path
    ) -> None:
        """The first model and those whose embedding is the head; other options are inside."""
        first, *others = self.models
        for number, model in enumerate(
            [first, *(m for m in others if "tied" in m.split(", "))]
        ):
            source, out = self.source(model, tmp_path / f"{number}"), tmp_path / f"{number}/out"
            found = self.with_device_head(source, out, scheme)
            with in_float64():
                assert self.disagreement(source, out, found) <= EXACT, model

    def test_the_cloud_has_no_head_and_no_other_key_has_one_for_it(
        self, scheme: str, tmp_path: Path
    ) -> None:
        source, out = self.source(next(iter(self.models)), tmp_path), tmp_path / "out"
        found = self.with_device_head(source, out, scheme)
        head = values_of(out / "model")[HEAD]
        assert head.shape == (found.info.vocabulary, found.info.width)
        assert not head.any()

        original, hosted = load_model(source), load_model(out / "model")
        with torch.inference_mode():
            rows = torch.ones(1, 3, found.info.width, dtype=torch.float64)
            assert not hosted(inputs_embeds=rows).logits.any()
        ids = np.random.default_rng(6).integers(0, found.info.vocabulary, 5)
        with in_float64():
            expected = original_greedy(original, ids, 12, ())
            bundle = Bundle.open(out / "device")
            assert protected_greedy(hosted, bundle, ids, 12) == expected

        self.with_device_head(source, tmp_path / "other", scheme)
        shutil.copy(tmp_path / "other" / "device" / HEAD_FILE, out / "device" / HEAD_FILE)
        assert self.disagreement(source, out, found) > self.least_break

    def with_device_head(self, source: Path, out: Path, scheme: str) -> Survey:
        """What was decided to protect a source in `out`, its head on the device."""
        return protect(str(source), out, choices=Choices.of(scheme=scheme, head="device"))
