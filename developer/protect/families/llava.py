"""The symmetry plan of LLaVA-1.5 (`LlavaForConditionalGeneration`).

LLaMA's table and CLIP's tower of images, joined by a projector of two layers. The device mixes
the pixels of each patch; the tower's residual, of which some layer's is taken as it is,
trades places; the neurons of the projector do; its second layer writes the residual of the
text. So the rows of an image arrive under the key of the text's.

Where an image goes in a text:

- interface `tokens`: at the keyed id of the image token, which the cloud's configuration has;
- interface `embeddings`: the stock class compares rows with the image token's row of its own
  table. The cloud's table is zeros, so the device sends rows of zeros there. Whoever pads a
  batch must pad with other rows, and a checkpoint whose table has a second row of zeros
  cannot use that token beside an image.

The last layers of the tower and its last norm answer nothing; they are keyed like the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families import clip, llama
from triparty.developer.protect.families.vision import PIXELS, image_of, rows_of
from triparty.developer.protect.options import Options, Section
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.rules import Rows, dropped, linear, table, within
from triparty.developer.protect.spaces import permuted

MODEL_TYPE = "llava"
ARCHITECTURES = ("LlavaForConditionalGeneration",)

# Options that the plan covers, with their defaults in `transformers`.
KNOWN: Mapping[str, Any] = {
    "image_token_index": 32000,
    "image_seq_length": 576,
    "projector_hidden_act": "gelu",
    "vision_feature_select_strategy": "default",
    "vision_feature_layer": -2,
    "multimodal_projector_bias": True,
    "tie_word_embeddings": False,
    "text_config": Section(llama.MODEL_TYPE, llama.KNOWN),
    "vision_config": Section("clip_vision_model", clip.VISION),
}

TEXT, TOWER, PROJECTOR = "language_model.", "vision_tower.", "multi_modal_projector."
# Names inside of the stock class, and of checkpoints of other versions.
ALIASES: Mapping[str, str] = {
    "lm_head.": TEXT + "lm_head.",
    "model.language_model.": TEXT + "model.",
    "model.multi_modal_projector.": PROJECTOR,
    "model.vision_tower.": TOWER,
    "vision_tower.vision_model.": TOWER,
}


def rows(text: Rows, *, read_layers: int, biased: bool) -> Rows:
    """The table of LLaVA.

    Args:
        text: of its language model.
        read_layers: how many layers' residuals the projector reads, one beside another.
        biased: whether the projector has biases.
    """
    seen = "|".join(["vision"] * read_layers)
    return table(
        within(TEXT, text),
        clip.vision_rows(TOWER),
        linear(PROJECTOR + "linear_1", seen, "projector", bias=biased),
        linear(PROJECTOR + "linear_2", "projector", "residual", bias=biased),
        dropped(TOWER + "embeddings.position_ids"),
    )


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one LLaVA configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    if choices.expand is not None:
        raise UnsupportedModelError(
            f"the residual of family {MODEL_TYPE!r} cannot be expanded: its projector is as "
            f"wide as the residual"
        )
    options.activation("projector_hidden_act")
    inner, vision = options.section("text_config"), options.section("vision_config")
    text = llama.plan(inner, choices, llama.ARCHITECTURES[0])
    tied = options.flag("tie_word_embeddings") or inner.flag("tie_word_embeddings")
    token = _image_token(options, text.vocabulary)
    return replace(
        text,
        family=MODEL_TYPE,
        task="image-text-to-text",
        prefix="",
        counts={**text.counts, "v": clip.layers(vision)},
        spaces={
            **text.spaces,
            **clip.vision_spaces(vision, choices.scheme),
            "projector": permuted("projector neurons", text.width),
        },
        rules=rows(
            text.rules,
            read_layers=_read_layers(options),
            biased=options.flag("multimodal_projector_bias"),
        ),
        offsets={**text.offsets, **clip.layer_offsets(vision, choices.scheme, "vision")},
        ties={TEXT + "lm_head.weight": TEXT + "model.embed_tokens.weight"} if tied else {},
        image=replace(image_of(vision), token_id=token, tokens=_image_tokens(options, vision)),
        pixels=PIXELS,
        token_ids={"image_token_index": token},
        aliases=ALIASES,
    )


def _read_layers(options: Options) -> int:
    """How many layers of the tower the projector reads."""
    given = options.document.get("vision_feature_layer", KNOWN["vision_feature_layer"])
    layers = given if isinstance(given, list) and given else [given]
    if not all(type(layer) is int for layer in layers):
        raise UnsupportedModelError(
            f"config.json: expected 'vision_feature_layer' to be a layer or a list of "
            f"layers, got {given!r}"
        )
    return len(layers)


def _image_token(options: Options, vocabulary: int) -> int:
    """The token that stands for images; some checkpoints have the option's other name."""
    document, name = options.document, "image_token_index"
    token = document.get(name, document.get("image_token_id", KNOWN[name]))
    if type(token) is not int or not 0 <= token < vocabulary:
        raise UnsupportedModelError(
            f"config.json: expected {name!r} to be a token id below {vocabulary}, got {token!r}"
        )
    return token


def _image_tokens(options: Options, vision: Options) -> int:
    """How many tokens an image takes in a text: its patches, and the class row if wanted."""
    name = "vision_feature_select_strategy"
    strategy = options.document.get(name, KNOWN[name])
    options.require(name, strategy, ("default", "full"))
    whole = rows_of(image_of(vision))
    return whole if strategy == "full" else whole - 1
