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
from family_law import EXACT, SINGLE_INSIDE, FamilyLaw, in_float64, values_of

from triparty.common.keying import HEAD_FILE, Bundle
from triparty.developer.answers import task_of
from triparty.developer.protect import Choices, Survey, protect
from triparty.developer.stock import load_model
from triparty.developer.verify import original_greedy, protected_greedy

HEAD = "lm_head.weight"


class DecoderLaw(FamilyLaw):
    """The law of a family with a head over the vocabulary, wherever the head is."""

    def with_device_head(self, source: Path, out: Path, scheme: str) -> Survey:
        """What was decided to protect a source in `out`, its head on the device."""
        return protect(str(source), out, choices=Choices.of(scheme=scheme, head="device"))

    def test_the_devices_head_answers_what_the_original_does(
        self, model: str, scheme: str, tmp_path: Path
    ) -> None:
        source, out = self.source(model, tmp_path), tmp_path / "out"
        found = self.with_device_head(source, out, scheme)
        with in_float64():
            assert self.disagreement(source, out, found) <= EXACT
        assert self.disagreement(source, out, found) <= SINGLE_INSIDE

    def test_the_hosted_head_and_table_are_zeros(self, scheme: str, tmp_path: Path) -> None:
        source, out = self.source(next(iter(self.models)), tmp_path), tmp_path / "out"
        found = self.with_device_head(source, out, scheme)
        hosted = values_of(out / "model")
        assert hosted[HEAD].shape == (found.info.vocabulary, found.info.width)
        assert not hosted[HEAD].any()
        rows = torch.zeros(1, 3, found.info.width, dtype=torch.float64)
        stock = load_model(out / "model")
        with torch.inference_mode():
            assert not stock(inputs_embeds=rows + 1).logits.any()

    def test_greedy_generation_is_the_originals(self, scheme: str, tmp_path: Path) -> None:
        source, out = self.source(next(iter(self.models)), tmp_path), tmp_path / "out"
        found = self.with_device_head(source, out, scheme)
        auto_class = task_of(found.plan.task).auto_class
        ids = np.random.default_rng(6).integers(0, found.info.vocabulary, 5)
        original = load_model(source, auto_class)
        protected = load_model(out / "model", auto_class)
        with in_float64():
            expected = original_greedy(original, ids, 12, ())
            bundle = Bundle.open(out / "device")
            assert protected_greedy(protected, bundle, ids, 12) == expected

    def test_the_head_of_another_key_breaks_the_law(self, scheme: str, tmp_path: Path) -> None:
        source, out = self.source(next(iter(self.models)), tmp_path), tmp_path / "out"
        found = self.with_device_head(source, out, scheme)
        self.with_device_head(source, tmp_path / "other", scheme)
        shutil.copy(tmp_path / "other" / "device" / HEAD_FILE, out / "device" / HEAD_FILE)
        assert self.disagreement(source, out, found) > self.least_break
