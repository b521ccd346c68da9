"""The symmetry plan of BERT (masked language model, classifier, sentence embedding).

The bare model answers with rows of the residual itself. Undoing them takes the residual's
key, so `head.safetensors` hands that key to the device. It hides little from the cloud either:
coordinates trade places and no more, so lengths and dot products of keyed rows, and with them
the likeness of any two sentences, are the plain ones for whoever sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families import post_norm
from triparty.developer.protect.families.shared import refuse_expansion, vocabulary_spaces
from triparty.developer.protect.labels import label_names
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import Rows, dropped, table

MODEL_TYPE = "bert"
ARCHITECTURES = ("BertForMaskedLM", "BertForSequenceClassification", "BertModel")
# The task of each, and the space of its answers.
ANSWERS: Mapping[str, tuple[str, str]] = {
    "BertForMaskedLM": ("masked-lm", VOCABULARY),
    "BertForSequenceClassification": ("sequence-classification", post_norm.LABELS),
    "BertModel": ("sentence-embedding", post_norm.RESIDUAL),
}
KNOWN: Mapping[str, Any] = {**post_norm.KNOWN, "use_cache": True}

TRANSFORM = "cls.predictions.transform."
DECODER, DECODER_BIAS = "cls.predictions.decoder", "cls.predictions.bias"


def rows(choices: Choices, architecture: str) -> Rows:
    """The table of BERT under one of its heads."""
    base = _base(architecture)
    return table(
        post_norm.embedding_rows(base, choices),
        post_norm.layer_rows(base),
        _head(architecture),
    )


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one BERT configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    task, output = ANSWERS[architecture]
    post_norm.refuse_other_encoders(options, choices, task=task)
    refuse_expansion(choices, MODEL_TYPE)
    base, layers = _base(architecture), options.count("num_hidden_layers")
    vocabulary = options.count("vocab_size")
    made = rows(choices, architecture)
    ties = dict(post_norm.old_names(made, layers))
    if task == "masked-lm":
        ties |= post_norm.masked_ties(options, base, DECODER, DECODER_BIAS)
    return Plan(
        family=MODEL_TYPE,
        task=task,
        prefix=base,
        counts={"l": range(layers)},
        width=options.count("hidden_size"),
        vocabulary=vocabulary,
        max_positions=options.count("max_position_embeddings"),
        spaces={
            **vocabulary_spaces(vocabulary, choices),
            **post_norm.encoder_spaces(options, choices),
        },
        rules=made,
        output_space=output,
        ties=ties,
        labels=label_names(options) if output == post_norm.LABELS else (),
        config={"num_labels": post_norm.label_count(options)},
    )


def _base(architecture: str) -> str:
    return "" if architecture == "BertModel" else "bert."


def _head(architecture: str) -> Rows:
    match architecture:
        case "BertModel":
            return post_norm.pooler_rows("pooler.dense")
        case "BertForSequenceClassification":
            return post_norm.classifier_rows("bert.pooler.dense", "classifier")
    return table(
        post_norm.masked_head_rows(
            TRANSFORM + "dense", TRANSFORM + "LayerNorm", DECODER, DECODER_BIAS
        ),
        post_norm.old_norm(TRANSFORM + "LayerNorm"),
        # Of the pretraining task, in checkpoints that were made for both; no stock masked
        # language model loads it.
        dropped("bert.pooler.dense.weight"),
        dropped("bert.pooler.dense.bias"),
        dropped("cls.seq_relationship.weight"),
        dropped("cls.seq_relationship.bias"),
    )
