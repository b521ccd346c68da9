"""The example model: small, quickly made, an ordinary checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from triparty.common.errors import StateError
from triparty.developer.example_model import make_example_model
from triparty.developer.protect import protect


class Clock:
    """A clock that advances a second at each look."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


def test_it_stops_in_time_and_saves_an_ordinary_checkpoint(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trained = make_example_model(tmp_path / "model", seconds=6, clock=Clock())
    assert trained.steps <= 7
    assert 0 < trained.loss < 8  # log(1024) is 6.9
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    text = "The following example shows “names”."
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == model.generation_config.bos_token_id == 0
    assert model.generation_config.eos_token_id == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert protect(str(tmp_path / "model"), tmp_path / "out").info.eos_ids == (1,)


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="exists already"):
        make_example_model(tmp_path, seconds=1, clock=Clock())
