"""What `protect` says of a plan is true of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from family_law import write_tokenizer

from triparty.developer.protect import Choices, survey
from triparty.developer.protect.description import lines, summary

TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
TINY_T5 = {
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 20,
    "num_layers": 1,
    "decoder_start_token_id": 0,
}


def said(folder: Path, name: str, options: dict[str, Any]) -> tuple[str, bool]:
    """What is said of a tiny model, and whether it counts as untied."""
    made: Any = getattr(transformers, name)
    made(made.config_class(**options)).save_pretrained(folder)
    write_tokenizer(folder, 40)
    found = survey(str(folder), Choices())
    return "\n".join(lines(found)), summary(found)["untied"]


@pytest.mark.parametrize(
    ("name", "options", "untied"),
    [
        ("BertModel", TINY, False),
        ("BertForSequenceClassification", TINY, False),
        ("BertForMaskedLM", TINY, True),
        ("BertForMaskedLM", {**TINY, "tie_word_embeddings": False}, False),
        ("T5ForConditionalGeneration", TINY_T5, True),
        ("MT5ForConditionalGeneration", {**TINY_T5, "num_heads": 2}, True),
        ("LlamaForCausalLM", TINY, False),
        ("LlamaForCausalLM", {**TINY, "tie_word_embeddings": True}, True),
    ],
)
def test_only_a_head_that_was_tied_is_said_to_be_untied(
    name: str, options: dict[str, Any], untied: bool, tmp_path: Path
) -> None:
    text, counted = said(tmp_path, name, options)
    assert counted == untied
    assert ("head gets a key of its own" in text) == untied


def test_a_t5_with_a_head_of_its_own_was_not_tied(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    said(tmp_path, "T5ForConditionalGeneration", TINY_T5)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "lm_head.weight": tensors["shared.weight"] + 1}, file)
    assert not summary(survey(str(tmp_path), Choices()))["untied"]


def test_norms_inside_heads_are_not_said_to_show_the_residual(tmp_path: Path) -> None:
    text, _ = said(tmp_path / "qwen3", "Qwen3ForCausalLM", TINY)
    assert "q_norm.weight cannot be folded" in text
    assert "how 'query norm.{l}' is keyed" in text
    assert "how 'residual' is keyed" not in text
    text, _ = said(tmp_path / "bert", "BertModel", TINY)
    assert "how 'residual' is keyed" in text
