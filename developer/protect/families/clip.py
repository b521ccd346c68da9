"""The symmetry plan of CLIP (`CLIPModel`): towers for text and for images, one space for both.

- Text: LayerNorm before every reader, learned positions, no positions in the heads. The stock
  class takes token ids alone (it finds the end of a text by its id), so there is only the
  interface `tokens`: the cloud has rows and positions, keyed. The end's keyed id is in the
  cloud's configuration, so the cloud sees where a text ends.
- Images: the device mixes the pixels of each patch (`vision.py`). The residual *is* the
  output of a LayerNorm (`pre_layrnorm`), whose weights scale each coordinate by itself: under
  either scheme its coordinates can only trade places, before that norm and after it alike.
- Both projections write the space `embedding`: rotated, or permuted. Its dot products are
  those of the original, so how alike an image and a text are is no secret from the cloud.

An old configuration names 2 as the end of a text; the stock class then takes the place of
the highest id instead, which is the end if the vocabulary's last id is. The protected model
names that one's keyed id, never 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.choices import Choices, Interface
from triparty.developer.protect.families.shared import refuse_expansion
from triparty.developer.protect.families.vision import (
    PIXELS,
    image_of,
    image_spaces,
    patches,
)
from triparty.developer.protect.heads import (
    Attention,
    Rotary,
    attention_offsets,
    attention_spaces,
)
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.options import Options, Section
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import (
    Rows,
    dropped,
    embedding,
    linear,
    norm,
    scalar,
    table,
    vector,
)
from triparty.developer.protect.spaces import (
    Norm,
    Offset,
    Scheme,
    Space,
    fixed,
    permuted,
    residual,
    rotated,
)
from triparty.developer.protect.transforms import Monomial

MODEL_TYPE = "clip"
ARCHITECTURES = ("CLIPModel",)

# Options that the plan covers, with their defaults in `transformers`.
ENCODER: Mapping[str, Any] = {
    "num_hidden_layers": 12,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "initializer_factor": 1.0,
}
TEXT: Mapping[str, Any] = {
    **ENCODER,
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "projection_dim": 512,
}
VISION: Mapping[str, Any] = {
    **ENCODER,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "projection_dim": 512,
}
KNOWN: Mapping[str, Any] = {
    "projection_dim": 512,
    "logit_scale_init_value": 2.6592,
    "initializer_factor": 1.0,
    "text_config": Section("clip_text_model", TEXT),
    "vision_config": Section("clip_vision_model", VISION),
}

END = "eos_token_id"
_DEFAULT_END = 49407
_OLD_END = 2


def rows() -> Rows:
    """The table of CLIP."""
    return table(
        text_rows("text_model."),
        linear("text_projection", "text", "embedding", after="text_model.final_layer_norm"),
        vision_rows("vision_model."),
        linear("visual_projection", "vision", "embedding", after="vision_model.post_layernorm"),
        scalar("logit_scale"),
        dropped("text_model.embeddings.position_ids"),
        dropped("vision_model.embeddings.position_ids"),
    )


def text_rows(prefix: str) -> Rows:
    """The tower of text."""
    embeddings = prefix + "embeddings."
    return table(
        embedding(embeddings + "token_embedding.weight", VOCABULARY, "text", device_name=None),
        embedding(
            embeddings + "position_embedding.weight", "positions", "text", device_name=None
        ),
        layer_rows(prefix + "encoder.layers.{l}.", "text", "{l}"),
        norm(prefix + "final_layer_norm", "text", bias=True, bias_kept=True),
    )


def vision_rows(prefix: str) -> Rows:
    """The tower of images, its layers counted by `{v}`."""
    embeddings = prefix + "embeddings."
    return table(
        patches(embeddings + "patch_embedding", "vision", bias=False),
        vector(embeddings + "class_embedding", "vision"),
        embedding(
            embeddings + "position_embedding.weight", "places", "vision", device_name=None
        ),
        norm(prefix + "pre_layrnorm", "vision", bias=True, foldable=False),
        layer_rows(prefix + "encoder.layers.{v}.", "vision", "{v}"),
        norm(prefix + "post_layernorm", "vision", bias=True, bias_kept=True),
    )


def layer_rows(layer: str, tower: str, letter: str) -> Rows:
    """A layer of a tower.

    Args:
        layer: how the names of its tensors begin.
        tower: its residual's space, by which its other spaces are named as well.
        letter: that counts the tower's layers, in braces.
    """
    first, second, attention = (
        layer + "layer_norm1",
        layer + "layer_norm2",
        layer + "self_attn.",
    )
    query, key, value, heads, neurons = (
        f"{kind}.{tower}.{letter}" for kind in ("query", "key", "value", "mixed", "neurons")
    )
    return table(
        norm(first, tower, bias=True),
        linear(attention + "q_proj", tower, query, after=first, bias=True),
        linear(attention + "k_proj", tower, key, after=first, bias=True),
        linear(attention + "v_proj", tower, value, after=first, bias=True),
        linear(attention + "out_proj", heads, tower, bias=True),
        norm(second, tower, bias=True),
        linear(layer + "mlp.fc1", tower, neurons, after=second, bias=True),
        linear(layer + "mlp.fc2", neurons, tower, bias=True),
    )


def text_spaces(options: Options, scheme: Scheme) -> Mapping[str, Space]:
    """The spaces of the tower of text."""
    width = options.count("hidden_size")
    return {
        "text": residual("text residual", width, scheme=scheme, norm=Norm.LAYER),
        "positions": fixed(options.count("max_position_embeddings")),
        **layer_spaces(options, scheme, "text"),
    }


def vision_spaces(options: Options, scheme: Scheme) -> Mapping[str, Space]:
    """The spaces of the tower of images."""
    width = options.count("hidden_size")
    return {
        "vision": residual(
            "vision residual", width, scheme=scheme, norm=Norm.LAYER, norm_is_residual=True
        ),
        **image_spaces(image_of(options), scheme),
        **layer_spaces(options, scheme, "vision"),
    }


def layer_spaces(options: Options, scheme: Scheme, tower: str) -> Mapping[str, Space]:
    """The spaces inside the layers of a tower.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("hidden_act")
    attention = attention_of(options, scheme)
    neurons = options.count("intermediate_size")
    spaces: dict[str, Space] = {}
    for layer in layers(options):
        name = f"{tower}.{layer}"
        spaces[f"neurons.{name}"] = permuted(f"layer {name} neurons", neurons)
        spaces |= attention_spaces(name, attention)
    return spaces


def layer_offsets(options: Options, scheme: Scheme, tower: str) -> Mapping[str, Offset]:
    """The secret offsets of the biases of a tower's attention."""
    attention = attention_of(options, scheme)
    offsets: dict[str, Offset] = {}
    for layer in layers(options):
        offsets |= attention_offsets(f"{tower}.{layer}", attention)
    return offsets


def attention_of(options: Options, scheme: Scheme) -> Attention:
    """The shape of a tower's attention.

    Raises:
        UnsupportedModelError: a width that does not divide into heads.
    """
    width, heads = options.count("hidden_size"), options.count("num_attention_heads")
    if width % heads:
        raise UnsupportedModelError(
            f"config.json: a width of {width} does not divide into {heads} heads"
        )
    return Attention(heads, heads, width // heads, Rotary.NONE, scheme)


def layers(options: Options) -> range:
    """The numbers of the layers of a tower."""
    return range(options.count("num_hidden_layers"))


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one CLIP configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover, or the interface
            `embeddings`.
    """
    refuse_expansion(choices, MODEL_TYPE)
    if choices.interface is not Interface.TOKENS:
        raise UnsupportedModelError(
            f"family {MODEL_TYPE!r} takes texts as token ids alone: use the interface 'tokens'"
        )
    for name in ("text_config", "vision_config"):
        _refuse_contradiction(options, name)
    text, vision = options.section("text_config"), options.section("vision_config")
    size, end = text.count("vocab_size"), _end(text)
    return Plan(
        family=MODEL_TYPE,
        task="image-text-embedding",
        prefix="",
        counts={"l": layers(text), "v": layers(vision)},
        width=text.count("hidden_size"),
        vocabulary=size,
        max_positions=text.count("max_position_embeddings"),
        spaces={
            VOCABULARY: _vocabulary(size, end),
            **text_spaces(text, choices.scheme),
            **vision_spaces(vision, choices.scheme),
            "embedding": rotated(
                "joint embedding", options.count("projection_dim"), scheme=choices.scheme
            ),
        },
        rules=rows(),
        output_space="embedding",
        offsets={
            **layer_offsets(text, choices.scheme, "text"),
            **layer_offsets(vision, choices.scheme, "vision"),
        },
        image=image_of(vision),
        pixels=PIXELS,
        token_ids={f"text_config.{END}": end},
    )


def _refuse_contradiction(options: Options, name: str) -> None:
    """Refuses what old files repeat of a section, where it says something else.

    Stock classes read `text_config_dict` as a configuration of its own, defaults included, and
    let all of it take precedence over `text_config`; likewise for `vision_config_dict`.
    """
    old = f"{name}_dict"
    if options.document.get(old) is None:
        return
    section, repeated = KNOWN[name], Options(options.document, {old: KNOWN[name]}).section(old)
    own = options.section(name)
    effective = [{**section.known, **one.kept()} for one in (own, repeated)]
    if name == "text_config":
        for found, one in zip(effective, (own, repeated), strict=True):
            found[END] = _end(one)
    for option, value in effective[0].items():
        options.require(f"{old}.{option}", effective[1][option], (value,))


def _end(text: Options) -> int:
    """The id at which the stock class reads off a text."""
    size = text.count("vocab_size")
    end = text.document.get(END, _DEFAULT_END)
    end = size - 1 if end == _OLD_END else end
    if type(end) is not int or not 0 <= end < size:
        raise UnsupportedModelError(
            f"config.json: expected 'text_config.{END}' to be a token id below {size}, "
            f"got {end!r}"
        )
    return end


def _vocabulary(size: int, end: int) -> Space:
    """Token ids as they leave the device; the end's is never 2, which old files mean by it."""

    def draw(keys: Keys) -> Monomial:
        index = keys.permutation(VOCABULARY, size)
        if size > _OLD_END and index[_OLD_END] == end:
            index[[0, _OLD_END]] = index[[_OLD_END, 0]]
        return Monomial(np.ascontiguousarray(index))

    return Space(size, draw)
