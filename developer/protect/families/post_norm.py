"""What the tables of encoders have in common whose norms come after the sum (BERT, Longformer).

The output of every norm is the residual of what follows, its weights cannot be folded away,
and under either scheme the residual's coordinates trade places and no more. (An independent
positive scale for each stretch between two norms would leave the function as it is but for
the epsilon inside the norms, so it would not be exact; one sign for all coordinates would be
exact and hide one bit.)

Learned positions and token types are added on the device, keyed; the cloud hosts zeros and
adds those. With the interface `tokens` the cloud hosts all three tables, rows of tokens in the
order of keyed ids: whoever knows the original positions or types can read the residual's key
off them. The norm over the sum stays on the cloud.

What a head reads is a space of its own. The bias of the keys could be anything (it shifts all
scores of a query alike); it is keyed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families.shared import lookup
from triparty.developer.protect.heads import Attention, Rotary, attention_spaces
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import VOCABULARY
from triparty.developer.protect.rules import Rows, dropped, linear, norm, table, vector
from triparty.developer.protect.spaces import (
    Norm,
    Scheme,
    Space,
    fixed,
    head_scaled,
    permuted,
    residual,
    signed,
)

LABELS = "labels"
"""The space of a classifier's answers."""

RESIDUAL = "residual"

# Options that the plans cover, with their defaults in `transformers`.
KNOWN: Mapping[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "classifier_dropout": None,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "tie_word_embeddings": True,
}


def embedding_rows(base: str, choices: Choices, *, positions: range | None = None) -> Rows:
    """The three tables and the norm over their sum.

    Args:
        base: pattern of the module that holds the encoder, with a dot, or nothing.
        choices: of which the interface matters.
        positions: rows of the table of positions that the tokens of a text take, if not all.
    """
    name = base + "embeddings."
    return table(
        lookup(name + "word_embeddings.weight", "ids", RESIDUAL, "rows", choices),
        lookup(
            name + "position_embeddings.weight",
            "positions",
            RESIDUAL,
            "positions",
            choices,
            device_rows=positions,
        ),
        lookup(name + "token_type_embeddings.weight", "types", RESIDUAL, "types", choices),
        post_norm(name + "LayerNorm"),
        dropped(name + "position_ids"),
    )


def layer_rows(base: str) -> Rows:
    """A layer: attention, then neurons, a norm after each sum."""
    layer = base + "encoder.layer.{l}."
    attention = layer + "attention.self."
    return table(
        linear(attention + "query", RESIDUAL, "query.{l}", bias=True),
        linear(attention + "key", RESIDUAL, "key.{l}", bias=True),
        linear(attention + "value", RESIDUAL, "value.{l}", bias=True),
        linear(layer + "attention.output.dense", "mixed.{l}", RESIDUAL, bias=True),
        post_norm(layer + "attention.output.LayerNorm"),
        linear(layer + "intermediate.dense", RESIDUAL, "neurons.{l}", bias=True),
        linear(layer + "output.dense", "neurons.{l}", RESIDUAL, bias=True),
        post_norm(layer + "output.LayerNorm"),
    )


def post_norm(name: str) -> Rows:
    """A norm whose output is the residual."""
    return table(norm(name, RESIDUAL, bias=True, foldable=False), old_norm(name))


def old_norm(name: str) -> Rows:
    """What early checkpoints call the weight and the bias of a norm; see `old_names`."""
    return table(dropped(f"{name}.gamma"), dropped(f"{name}.beta"))


def masked_head_rows(dense: str, norm_name: str, decoder: str, bias: str) -> Rows:
    """The head of a masked language model.

    Args:
        dense: pattern of its linear layer.
        norm_name: of the norm over that layer's activation, which the decoder alone reads.
        decoder: of the linear layer that writes the logits.
        bias: of the decoder's bias under its other name. Stock classes load both and, in a
            model whose tensors are not tied, add the decoder's own. Other engines take this
            one, so both are the same and the norm keeps its bias.
    """
    return table(
        linear(dense, RESIDUAL, "transform", bias=True),
        norm(norm_name, "transform", bias=True, bias_kept=True),
        linear(decoder, "transform", VOCABULARY, after=norm_name, bias=True),
        vector(bias, VOCABULARY),
    )


def classifier_rows(dense: str, classifier: str) -> Rows:
    """The head of a classifier: a layer under tanh, and the labels."""
    return table(pooler_rows(dense), linear(classifier, "pooled", LABELS, bias=True))


def pooler_rows(dense: str) -> Rows:
    """A layer over the first token's row, under tanh."""
    return linear(dense, RESIDUAL, "pooled", bias=True)


def encoder_spaces(options: Options, choices: Choices) -> dict[str, Space]:
    """Every space of an encoder and its heads but those of tokens."""
    scheme, width = choices.scheme, options.count("hidden_size")
    labels = permuted(LABELS, label_count(options))
    spaces = {
        "positions": fixed(options.count("max_position_embeddings")),
        "types": fixed(options.count("type_vocab_size")),
        RESIDUAL: residual(
            RESIDUAL, width, scheme=scheme, norm=Norm.LAYER, norm_is_residual=True
        ),
        "transform": permuted("transform", width),
        # tanh is odd: a neuron may change its sign.
        "pooled": (signed if scheme is Scheme.ORTHOGONAL else permuted)("pooled", width),
        LABELS: head_scaled(labels) if choices.head_scales else labels,
    }
    attention, neurons = attention_of(options, scheme), options.count("intermediate_size")
    for layer in range(options.count("num_hidden_layers")):
        spaces[f"neurons.{layer}"] = permuted(f"layer {layer} neurons", neurons)
        spaces |= attention_spaces(str(layer), attention)
    return spaces


def attention_of(options: Options, scheme: Scheme) -> Attention:
    """The shape of every layer's attention: no positions in the heads.

    Raises:
        UnsupportedModelError: a width that does not divide into heads.
    """
    width, heads = options.count("hidden_size"), options.count("num_attention_heads")
    if width % heads:
        raise UnsupportedModelError(
            f"config.json: a width of {width} does not divide into {heads} heads"
        )
    return Attention(heads, heads, width // heads, Rotary.NONE, scheme)


def label_count(options: Options) -> int:
    """How many labels a classifier tells apart.

    Raises:
        UnsupportedModelError: no names, or no positive number.
    """
    names = options.document.get("id2label")
    if names is not None and not isinstance(names, Mapping):
        raise UnsupportedModelError(
            f"config.json: expected 'id2label' to name each label, got {names!r}"
        )
    count = len(names) if names else options.document.get("num_labels", 2)
    if type(count) is not int or count < 1:
        raise UnsupportedModelError(
            f"config.json: expected 'num_labels' to be a positive number, got {count!r}"
        )
    return count


def refuse_other_encoders(options: Options, choices: Choices, *, task: str) -> None:
    """Refuses what no encoder here can be.

    Raises:
        UnsupportedModelError: a decoder, relative positions, or scaled sentence rows.
    """
    options.activation("hidden_act")
    document = options.document
    options.require("is_decoder", document.get("is_decoder", False), (False,))
    kind = document.get("position_embedding_type", "absolute")
    options.require("position_embedding_type", kind, ("absolute", None))
    if choices.head_scales and task == "sentence-embedding":
        raise UnsupportedModelError(
            "head scales need a head: the answers of this model are its residual, whose "
            "coordinates cannot be scaled under a norm"
        )


def masked_ties(options: Options, base: str, decoder: str, bias: str) -> Mapping[str, str]:
    """What a tied masked language model's checkpoint may leave out.

    Stock classes tie the decoder's bias to its other name with the word embeddings, and
    checkpoints have either of them, or both.
    """
    if not options.flag("tie_word_embeddings"):
        return {}
    return {
        f"{decoder}.weight": f"{base}embeddings.word_embeddings.weight",
        f"{decoder}.bias": bias,
        bias: f"{decoder}.bias",
    }


def old_names(rows: Rows, layers: int) -> Mapping[str, str]:
    """The names of early checkpoints, which stock classes still read: gamma and beta.

    Args:
        rows: of the family.
        layers: how many the encoder has.

    Returns:
        For each weight and bias of a norm with `old_norm` rows, the name that may stand in.
    """
    names = {}
    for rule in rows:
        module, _, last = rule.pattern.rpartition(".")
        if last in ("gamma", "beta"):
            new = f"{module}.weight" if last == "gamma" else f"{module}.bias"
            for layer in range(layers if "{l}" in module else 1):
                number = str(layer)
                names[new.replace("{l}", number)] = rule.pattern.replace("{l}", number)
    return names
