"""The symmetry plan of ViT (`ViTForImageClassification`).

LayerNorm before every reader, no positions in the heads. The device mixes the pixels of each
patch (`vision.py`); the class row and the positions are added by the cloud, which therefore
has them keyed: whoever knows the original ones (a public base model) can read the residual's
key off them, and then the pixels' off the convolution. The answers, labels, trade places; the
cloud's configuration gives them numbers for names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families.shared import refuse_expansion
from triparty.developer.protect.families.vision import (
    PIXELS,
    image_of,
    image_spaces,
    patches,
    refuse_tokens,
    rows_of,
)
from triparty.developer.protect.heads import (
    Attention,
    Rotary,
    attention_offsets,
    attention_spaces,
)
from triparty.developer.protect.labels import hosted_labels, label_names
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.rules import Axis, Rows, Rule, linear, norm, table, vector
from triparty.developer.protect.spaces import (
    Norm,
    Offset,
    head_scaled,
    permuted,
    residual,
)

MODEL_TYPE = "vit"
ARCHITECTURES = ("ViTForImageClassification",)

# Options that the plan covers, with their defaults in `transformers`. The names of the labels
# (`id2label`) are read and stay with the device.
KNOWN: Mapping[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
}

EMBEDDINGS, LAYER = "vit.embeddings.", "vit.encoder.layer.{l}."


def rows(options: Options) -> Rows:
    """The table of ViT."""
    biased = options.flag("qkv_bias")
    attention, first, second = (
        LAYER + "attention.attention.",
        LAYER + "layernorm_before",
        LAYER + "layernorm_after",
    )
    return table(
        patches(EMBEDDINGS + "patch_embeddings.projection", "residual", bias=True),
        vector(EMBEDDINGS + "cls_token", "residual"),
        positions(EMBEDDINGS + "position_embeddings"),
        norm(first, "residual", bias=True, bias_kept=not biased),
        linear(attention + "query", "residual", "query.{l}", after=first, bias=biased),
        linear(attention + "key", "residual", "key.{l}", after=first, bias=biased),
        linear(attention + "value", "residual", "value.{l}", after=first, bias=biased),
        linear(LAYER + "attention.output.dense", "mixed.{l}", "residual", bias=True),
        norm(second, "residual", bias=True),
        linear(
            LAYER + "intermediate.dense", "residual", "neurons.{l}", after=second, bias=True
        ),
        linear(LAYER + "output.dense", "neurons.{l}", "residual", bias=True),
        norm("vit.layernorm", "residual", bias=True),
        linear("classifier", "residual", "labels", after="vit.layernorm", bias=True),
    )


def positions(pattern: str) -> Rows:
    """The table (1, N, D) of positions, which the cloud adds."""
    return (Rule(pattern, (Axis("places"), Axis("residual")), flat=True),)


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one ViT configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("hidden_act")
    refuse_expansion(choices, MODEL_TYPE)
    refuse_tokens(choices, MODEL_TYPE)
    scheme, image = choices.scheme, image_of(options)
    layers, width = options.count("num_hidden_layers"), options.count("hidden_size")
    heads, names = options.count("num_attention_heads"), label_names(options)
    if width % heads:
        raise UnsupportedModelError(
            f"config.json: a width of {width} does not divide into {heads} heads"
        )
    labels = permuted("labels", len(names))
    spaces = {
        "residual": residual("residual", width, scheme=scheme, norm=Norm.LAYER),
        "labels": head_scaled(labels) if choices.head_scales else labels,
        **image_spaces(image, scheme),
    }
    attention = Attention(heads, heads, width // heads, Rotary.NONE, scheme)
    neurons = options.count("intermediate_size")
    offsets: dict[str, Offset] = {}
    for layer in range(layers):
        spaces[f"neurons.{layer}"] = permuted(f"layer {layer} neurons", neurons)
        spaces |= attention_spaces(str(layer), attention)
        if options.flag("qkv_bias"):
            offsets |= attention_offsets(str(layer), attention)
    return Plan(
        family=MODEL_TYPE,
        task="image-classification",
        prefix="vit.",
        counts={"l": range(layers)},
        width=width,
        vocabulary=0,
        max_positions=rows_of(image),
        spaces=spaces,
        rules=rows(options),
        output_space="labels",
        offsets=offsets,
        config=hosted_labels(len(names)),
        image=image,
        pixels=PIXELS,
        labels=names,
    )
