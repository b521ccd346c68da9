"""The symmetry plan of Longformer (masked language model, classifier, sentence embedding).

Tokens attend to their neighbours; chosen ones attend to all, and all to them. The chosen ones
have queries and keys of their own to look at everybody, and those have a key of their own.
Everybody looks at the chosen ones with the ordinary queries and keys. Values of both kinds
leave through one output projection, so they share a key, and heads of both kinds one order.

Positions are counted from the padding token's id on, so the rows before are no token's. With
the interface `embeddings` the device has the rows that tokens take and the cloud counts over
zeros. With `tokens` the cloud tells by the id which tokens are padding, so that the padding
token keeps its id. (A text with a padding token in its middle is none: stock classes give that
token no position, a device does.)

The bare model answers with rows of the residual; see `bert.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.choices import Choices, Interface
from triparty.developer.protect.families import post_norm
from triparty.developer.protect.families.shared import refuse_expansion, vocabulary_spaces
from triparty.developer.protect.heads import attention_spaces
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.labels import label_names
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import Rows, dropped, linear, table
from triparty.developer.protect.spaces import Space
from triparty.developer.protect.transforms import Monomial

MODEL_TYPE = "longformer"
ARCHITECTURES = (
    "LongformerForMaskedLM",
    "LongformerForSequenceClassification",
    "LongformerModel",
)
# The task of each, and the space of its answers.
ANSWERS: Mapping[str, tuple[str, str]] = {
    "LongformerForMaskedLM": ("masked-lm", VOCABULARY),
    "LongformerForSequenceClassification": ("sequence-classification", post_norm.LABELS),
    "LongformerModel": ("sentence-embedding", post_norm.RESIDUAL),
}
KNOWN: Mapping[str, Any] = {**post_norm.KNOWN, "attention_window": 512}

DECODER, DECODER_BIAS = "lm_head.decoder", "lm_head.bias"


def rows(choices: Choices, architecture: str, positions: range) -> Rows:
    """The table of Longformer under one of its heads."""
    base = _base(architecture)
    attention = base + "encoder.layer.{l}.attention.self."
    return table(
        post_norm.embedding_rows(base, choices, positions=positions),
        post_norm.layer_rows(base),
        linear(attention + "query_global", "residual", "query.{l} global", bias=True),
        linear(attention + "key_global", "residual", "key.{l} global", bias=True),
        linear(attention + "value_global", "residual", "value.{l}", bias=True),
        _head(architecture),
    )


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one Longformer configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    task, output = ANSWERS[architecture]
    post_norm.refuse_other_encoders(options, choices, task=task)
    refuse_expansion(choices, MODEL_TYPE)
    options.require("onnx_export", options.document.get("onnx_export", False), (False,))
    base, layers = _base(architecture), options.count("num_hidden_layers")
    padding, positions = _padding(options), _positions(options, choices)
    made = rows(choices, architecture, positions)
    ties = dict(post_norm.old_names(made, layers))
    if task == "masked-lm":
        ties |= post_norm.masked_ties(options, base, DECODER, DECODER_BIAS)
    tokens = choices.interface is Interface.TOKENS
    return Plan(
        family=MODEL_TYPE,
        task=task,
        prefix=base,
        counts={"l": range(layers)},
        width=options.count("hidden_size"),
        vocabulary=options.count("vocab_size"),
        max_positions=len(positions),
        spaces=_spaces(options, choices, padding),
        rules=made,
        output_space=output,
        ties=ties,
        labels=label_names(options) if output == post_norm.LABELS else (),
        config={
            "num_labels": post_norm.label_count(options),
            "pad_token_id": padding if tokens else 0,
        },
    )


def _spaces(options: Options, choices: Choices, padding: int) -> dict[str, Space]:
    vocabulary = options.count("vocab_size")
    spaces = {
        **vocabulary_spaces(vocabulary, choices),
        **post_norm.encoder_spaces(options, choices),
    }
    if choices.interface is Interface.TOKENS:
        spaces[VOCABULARY] = permuted_around(VOCABULARY, vocabulary, padding)
    attention = post_norm.attention_of(options, choices.scheme)
    for layer in range(options.count("num_hidden_layers")):
        # The order of heads is that of the layer's other attention.
        everywhere = replace(attention, order_label=f"layer {layer}")
        made = attention_spaces(f"{layer} global", everywhere)
        spaces |= {
            name: made[name] for name in (f"query.{layer} global", f"key.{layer} global")
        }
    return spaces


def permuted_around(label: str, size: int, kept: int) -> Space:
    """A space whose coordinates trade places, all but one."""

    def draw(keys: Keys) -> Monomial:
        others = np.delete(np.arange(size), kept)
        return Monomial(np.insert(others[keys.permutation(label, size - 1)], kept, kept))

    return Space(size, draw)


def _positions(options: Options, choices: Choices) -> range:
    """The rows of the table of positions that the tokens of a text take.

    Stock classes pad texts to whole windows. Padded rows (but not padded ids) take positions
    as well, and what the cloud counts begins with 1.
    """
    size, first = options.count("max_position_embeddings"), _padding(options) + 1
    window = _window(options)
    length = size - first
    if choices.interface is Interface.EMBEDDINGS:
        length = min(length, (size - 1) // window * window)
    if length < 1:
        raise UnsupportedModelError(
            f"config.json: {size} positions leave no room for a text beside padding token "
            f"{first - 1} and windows of {window} tokens"
        )
    return range(first, first + length)


def _padding(options: Options) -> int:
    padding = options.document.get("pad_token_id", 1)
    if type(padding) is not int or not 0 <= padding < options.count("vocab_size"):
        raise UnsupportedModelError(
            f"config.json: expected 'pad_token_id' to be a token id, got {padding!r}"
        )
    return padding


def _window(options: Options) -> int:
    """The widest attention window of the layers."""
    layers = options.count("num_hidden_layers")
    given = options.document.get("attention_window", KNOWN["attention_window"])
    windows: list[int] = given if isinstance(given, list) else [given] * layers
    even = all(type(width) is int and width > 0 and width % 2 == 0 for width in windows)
    if len(windows) != layers or not even:
        raise UnsupportedModelError(
            f"config.json: expected 'attention_window' to be an even number of tokens, or one "
            f"for each layer, got {given!r}"
        )
    return max(windows)


def _base(architecture: str) -> str:
    return "" if architecture == "LongformerModel" else "longformer."


def _head(architecture: str) -> Rows:
    if architecture == "LongformerModel":
        return post_norm.pooler_rows("pooler.dense")
    # In checkpoints of the bare model; no stock class with a head loads it.
    pooler = table(
        dropped("longformer.pooler.dense.weight"), dropped("longformer.pooler.dense.bias")
    )
    if architecture == "LongformerForSequenceClassification":
        head = post_norm.classifier_rows("classifier.dense", "classifier.out_proj")
    else:
        head = post_norm.masked_head_rows(
            "lm_head.dense", "lm_head.layer_norm", DECODER, DECODER_BIAS
        )
    return table(head, pooler)
