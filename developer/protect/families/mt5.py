"""The symmetry plan of mT5 (`MT5ForConditionalGeneration`).

T5 in its gated form, with a head of its own. The stock class never scales the decoder's output,
tied or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families import t5
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import Plan

MODEL_TYPE = "mt5"
ARCHITECTURES = ("MT5ForConditionalGeneration",)

# Options that the plan covers, with their defaults in `transformers`.
KNOWN: Mapping[str, Any] = {
    **{name: value for name, value in t5.KNOWN.items() if name != "scale_decoder_outputs"},
    "vocab_size": 250112,
    "d_ff": 1024,
    "num_layers": 8,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
}


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one mT5 configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    return t5.seq2seq_plan(MODEL_TYPE, options, choices, head_factor=1.0, config={})
