"""The symmetry plan of T5 (`T5ForConditionalGeneration`), an encoder and a decoder.

RMSNorm before every reader and no rotary positions: both residuals are rotated freely, and
the heads mixed freely. What is special:

- one table embeds the texts of both stacks, so that their residuals share one key. The keys
  and values of cross-attention read the encoder's last norm, and nothing else does, so that
  its weights are folded into them; the queries read the decoder's residual.
- positions are a bias on the scores of each head, by distance. The first layer of a stack has
  the table and all its layers use it: the heads of a stack keep one order, and the table's
  columns follow. Cross-attention has no such bias, and an order of heads in each layer.
- ReLU is the same at every scale: under `orthogonal` its neurons are scaled by positive
  numbers, which their reader undoes. Other activations allow this in the gated form alone.
- tied checkpoints scale the decoder's output by d^-1/2 before the head. The protected head is
  never tied, so that the factor goes into its weights and the configuration says so.

Relative positions have no last one: how long a text may be is up to the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families.shared import lookup, vocabulary_spaces
from triparty.developer.protect.heads import Attention, Rotary, attention_spaces
from triparty.developer.protect.options import ELEMENTWISE_ACTIVATIONS, Options
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import (
    Rows,
    dropped,
    embedding,
    linear,
    norm,
    table,
)
from triparty.developer.protect.spaces import (
    Norm,
    Scheme,
    Space,
    fixed,
    gated_neurons,
    permuted,
    residual,
    scaled,
)

MODEL_TYPE = "t5"
ARCHITECTURES = ("T5ForConditionalGeneration",)

# Options that the plan covers, with their defaults in `transformers`.
KNOWN: Mapping[str, Any] = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_decoder_layers": None,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "initializer_factor": 1.0,
    "feed_forward_proj": "relu",
    "dense_act_fn": None,
    "is_gated_act": None,
    "is_encoder_decoder": True,
    "is_decoder": False,
    "use_cache": True,
    "tie_word_embeddings": True,
    "scale_decoder_outputs": None,
}

LONGEST_TEXT = 1 << 16
ENCODER, DECODER = "encoder.block.{l}.layer.", "decoder.block.{m}.layer."
SELF, CROSS, FEED = "SelfAttention", "EncDecAttention", "DenseReluDense"


def rows(options: Options, choices: Choices, *, head_factor: float) -> Rows:
    """The table of T5.

    Args:
        options: of the source.
        choices: what the developer chose.
        head_factor: of the decoder's output before the head.
    """
    encoded, decoded = "encoder.final_layer_norm", "decoder.final_layer_norm"
    return table(
        lookup("shared.weight", "ids", "residual", "rows", choices),
        norm(ENCODER + "0.layer_norm", "residual"),
        attention(ENCODER + "0", SELF, "encoder {l}"),
        distances("encoder"),
        norm(ENCODER + "1.layer_norm", "residual"),
        feed_forward(ENCODER + "1", "encoder {l}", gated=activation(options)[0]),
        norm(encoded, "residual"),
        norm(DECODER + "0.layer_norm", "residual"),
        attention(DECODER + "0", SELF, "decoder {m}"),
        distances("decoder"),
        norm(DECODER + "1.layer_norm", "residual"),
        attention(DECODER + "1", CROSS, "cross {m}", memory=encoded),
        norm(DECODER + "2.layer_norm", "residual"),
        feed_forward(DECODER + "2", "decoder {m}", gated=activation(options)[0]),
        norm(decoded, "residual"),
        linear("lm_head", "residual", VOCABULARY, after=decoded, factor=head_factor),
        dropped("encoder.embed_tokens.weight"),  # `shared`, in old checkpoints
        dropped("decoder.embed_tokens.weight"),
        dropped("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"),
    )


def attention(part: str, kind: str, name: str, *, memory: str | None = None) -> Rows:
    """The rows of an attention layer.

    Args:
        part: pattern of the layer with its norm.
        kind: of attention, as the module is called.
        name: of the layer's spaces.
        memory: the norm whose output keys and values read; the layer's own if None.
    """
    module, own = f"{part}.{kind}.", part + ".layer_norm"
    read = memory or own
    return table(
        linear(module + "q", "residual", f"query.{name}", after=own),
        linear(module + "k", "residual", f"key.{name}", after=read),
        linear(module + "v", "residual", f"value.{name}", after=read),
        linear(module + "o", f"mixed.{name}", "residual"),
    )


def distances(stack: str) -> Rows:
    """The table of a stack that gives each head a bias by distance."""
    name = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return embedding(name, "distances", f"heads.{stack} 0", device_name=None)


def feed_forward(part: str, name: str, *, gated: bool) -> Rows:
    """The rows of a feed-forward layer."""
    module, after = f"{part}.{FEED}.", part + ".layer_norm"
    if not gated:
        return table(
            linear(module + "wi", "residual", f"neurons.{name}", after=after),
            linear(module + "wo", f"neurons.{name}", "residual"),
        )
    return table(
        linear(module + "wi_0", "residual", f"gate.{name}", after=after),
        linear(module + "wi_1", "residual", f"up.{name}", after=after),
        linear(module + "wo", f"up.{name}", "residual"),
    )


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one T5 configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    factor = options.count("d_model") ** -0.5 if scales_output(options) else 1.0
    return seq2seq_plan(
        MODEL_TYPE,
        options,
        choices,
        head_factor=factor,
        config={"scale_decoder_outputs": False},
    )


def seq2seq_plan(
    model_type: str,
    options: Options,
    choices: Choices,
    *,
    head_factor: float,
    config: Mapping[str, Any],
) -> Plan:
    """The plan of T5 or of a family that differs in its options alone.

    Args:
        model_type: of the family.
        options: of the source.
        choices: what the developer chose.
        head_factor: of the decoder's output before the head.
        config: what the protected `config.json` says otherwise.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    for name in ("is_encoder_decoder", "is_decoder"):
        options.require(name, options.flag(name), (KNOWN[name],))
    width, scheme = options.count("d_model"), choices.scheme
    layers = options.count("num_layers")
    counts = {
        "l": range(layers),
        "m": range(options.count("num_decoder_layers", default=layers)),
    }
    spaces = {
        "distances": fixed(options.count("relative_attention_num_buckets")),
        "residual": residual(
            "residual", width, scheme=scheme, norm=Norm.RMS, new_size=choices.expand
        ),
        **vocabulary_spaces(options.count("vocab_size"), choices),
    }
    for stack, letter in (("encoder", "l"), ("decoder", "m")):
        for layer in counts[letter]:
            name = f"{stack} {layer}"
            spaces |= attention_spaces(name, heads(options, scheme, stack=stack))
            spaces |= neurons(name, options, scheme)
    for layer in counts["m"]:
        spaces |= attention_spaces(f"cross {layer}", heads(options, scheme))
    return Plan(
        family=model_type,
        task="seq2seq-lm",
        prefix="",
        counts=counts,
        width=width,
        vocabulary=options.count("vocab_size"),
        max_positions=LONGEST_TEXT,
        spaces=spaces,
        rules=rows(options, choices, head_factor=head_factor),
        output_space=VOCABULARY,
        ties={
            "lm_head.weight": "shared.weight",
            "encoder.embed_tokens.weight": "shared.weight",
            "decoder.embed_tokens.weight": "shared.weight",
        },
        separable=frozenset({"lm_head.weight"}),
        config={**config, **wider(options, choices, width)},
    )


def heads(options: Options, scheme: Scheme, *, stack: str | None = None) -> Attention:
    """The attention of a layer; the layers of a stack keep one order of heads."""
    count = options.count("num_heads")
    return Attention(
        count, count, options.count("d_kv"), Rotary.NONE, scheme, order_label=stack
    )


def neurons(name: str, options: Options, scheme: Scheme) -> Mapping[str, Space]:
    """The neurons of one feed-forward layer."""
    label, size = f"layer {name} neurons", options.count("d_ff")
    gated, function = activation(options)
    if gated:
        gate, up = gated_neurons(label, size, scheme=scheme)
        return {f"gate.{name}": gate, f"up.{name}": up}
    space = permuted(label, size)
    if function == "relu" and scheme is Scheme.ORTHOGONAL:
        space = scaled(space, f"{label} scales", negative=False)
    return {f"neurons.{name}": space}


def activation(options: Options) -> tuple[bool, str]:
    """Whether feed-forward layers are gated, and their activation.

    `feed_forward_proj` says both, and saved configurations may say either by itself as well.

    Raises:
        UnsupportedModelError: an activation that might look at more than one neuron.
    """
    words = options.word("feed_forward_proj")
    gated, _, function = words.rpartition("-")
    options.require("feed_forward_proj", gated, ("", "gated"))
    if words == "gated-gelu":
        function = "gelu_new"
    said = options.document.get("is_gated_act", gated == "gated")
    function = options.document.get("dense_act_fn", function)
    options.require("is_gated_act", said, (True, False))
    options.require("dense_act_fn", function, ELEMENTWISE_ACTIVATIONS)
    return bool(said), str(function)


def scales_output(options: Options) -> bool:
    """Whether the stock class scales the decoder's output.

    It does so in tied checkpoints, unless the configuration says by itself what it does.
    """
    tied = options.document.get("tie_word_embeddings") is not False
    scales = options.document.get("scale_decoder_outputs", tied)
    options.require("scale_decoder_outputs", scales, (True, False))
    return bool(scales)


def wider(options: Options, choices: Choices, width: int) -> Mapping[str, Any]:
    """What `config.json` says otherwise of a model whose residual is expanded.

    Raises:
        UnsupportedModelError: fewer coordinates than before.
    """
    if choices.expand is None:
        return {}
    if choices.expand < width:
        raise UnsupportedModelError(
            f"expected an expansion to {width} coordinates or more, got {choices.expand}"
        )
    epsilon = options.number("layer_norm_epsilon") * width / choices.expand
    return {"d_model": choices.expand, "layer_norm_epsilon": epsilon}
