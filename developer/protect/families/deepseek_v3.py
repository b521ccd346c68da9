"""The symmetry plan of DeepSeek-V3 (`DeepseekV3ForCausalLM`).

Latent attention: queries, and keys with values, pass through a narrow latent that is
normalised by itself. Each latent is a residual of its own (any rotation, once the weights of
its norm are folded). What a head reads from the latents is keyed per head, and heads trade
places: the part without positions by any invertible A (keys by its dual), the values by any
invertible B. The rotary part of the key is written once and read by every head, so that one
complex number a pair is shared by all of them.

Experts: the router takes the best experts of the best groups, so that whole groups trade
places, and experts inside a group; the correction bias moves along. Its scores are sigmoids:
unlike those of a softmax they allow no common shift.

The layers past the last one draft tokens ahead (multi-token prediction). The stock class does
not load them, and answers without them are the same: they are dropped, and the protected
configuration says that there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families.shared import (
    expanded,
    lookup,
    ties,
    vocabulary_spaces,
)
from triparty.developer.protect.heads import Rotary, turned_pairs
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import Rows, dropped, linear, norm, table, vector
from triparty.developer.protect.spaces import (
    Norm,
    Scheme,
    Space,
    gated_neurons,
    mixed,
    residual,
    rotated,
)
from triparty.developer.protect.transforms import Monomial, Transform, joined, side_by_side

MODEL_TYPE = "deepseek_v3"
ARCHITECTURES = ("DeepseekV3ForCausalLM",)

# Options that the plan covers, with their defaults in `transformers`; the last ones are read
# by other engines alone.
KNOWN: Mapping[str, Any] = {
    "vocab_size": 129280,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "head_dim": None,
    "n_shared_experts": 1,
    "n_routed_experts": 256,
    "routed_scaling_factor": 2.5,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "n_group": 8,
    "topk_group": 4,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "norm_topk_prob": True,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "rope_interleave": True,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "tie_word_embeddings": False,
    "moe_layer_freq": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
}

LAYER = "model.layers.{l}."
DENSE = "model.layers.{d}."
SPARSE = "model.layers.{s}."
DRAFT = "model.layers.{n}."


@dataclass(frozen=True)
class LatentAttention:
    """The shape of an attention layer whose keys and values come from one latent.

    Attributes:
        heads: how many.
        free: query and key coordinates of a head that carry no positions.
        rotary_width: those that do.
        value_width: value coordinates of a head.
        rotary: how positions pair coordinates.
        scheme: how spaces are keyed.
    """

    heads: int
    free: int
    rotary_width: int
    value_width: int
    rotary: Rotary
    scheme: Scheme

    def spaces(self, name: str) -> Mapping[str, Space]:
        """The spaces of one layer.

        Args:
            name: of the layer.

        Returns:
            `query.NAME` (per head: without positions, then with them), `rotary key.NAME`
            (shared by all heads), `key value.NAME` (per head: a key without positions, then
            a value) and `mixed.NAME` (what the heads write before the output projection).
        """

        def heads(width: int, draw: Callable[[_Draws, int], Transform]) -> Space:
            return Space(
                self.heads * width,
                lambda keys: _Draws(keys, name, self).by_head(width, draw),
            )

        return {
            f"query.{name}": heads(
                self.free + self.rotary_width,
                lambda key, head: joined([key.scores(head), key.turns()]),
            ),
            f"rotary key.{name}": Space(
                self.rotary_width, lambda keys: _Draws(keys, name, self).turns().dual()
            ),
            f"key value.{name}": heads(
                self.free + self.value_width,
                lambda key, head: joined([key.scores(head).dual(), key.values(head)]),
            ),
            f"mixed.{name}": heads(self.value_width, lambda key, head: key.values(head)),
        }


@dataclass(frozen=True)
class _Draws:
    """The draws of one attention layer; heads are counted in the new order."""

    keys: Keys
    name: str
    shape: LatentAttention

    def scores(self, head: int) -> Transform:
        """Of the query coordinates of a head that carry no positions."""
        return self._mixed(f"layer {self.name} scores {head}", self.shape.free)

    def values(self, head: int) -> Transform:
        """Of the value coordinates of a head."""
        return self._mixed(f"layer {self.name} values {head}", self.shape.value_width)

    def turns(self) -> Transform:
        """Of the query coordinates that carry positions, in every head."""
        shape, label = self.shape, f"layer {self.name} turns"
        return turned_pairs(self.keys, label, shape.rotary_width, shape.rotary, shape.scheme)

    def by_head(self, width: int, inside: Callable[[_Draws, int], Transform]) -> Transform:
        """Each head under its own transform, heads in their new order."""
        order = self.keys.permutation(f"layer {self.name} heads", self.shape.heads)
        return side_by_side(
            [(int(old) * width, inside(self, new)) for new, old in enumerate(order)]
        )

    def _mixed(self, label: str, width: int) -> Transform:
        return mixed(label, width, scheme=self.shape.scheme).draw(self.keys)


def grouped(label: str, size: int, groups: int) -> Space:
    """Coordinates that trade places inside their group, and groups that trade places.

    Args:
        label: derives its key.
        size: how many coordinates.
        groups: of the same size, one after another.
    """
    share = size // groups

    def draw(keys: Keys) -> Monomial:
        order = keys.permutation(f"{label} groups", groups)
        inside = [keys.permutation(f"{label} group {new}", share) for new in range(groups)]
        return Monomial(
            np.concatenate(
                [old * share + places for old, places in zip(order, inside, strict=True)]
            )
        )

    return Space(size, draw)


def rows(options: Options, choices: Choices) -> Rows:
    """The table of DeepSeek-V3."""
    return table(
        lookup("model.embed_tokens.weight", "ids", "residual", "rows", choices),
        attention(LAYER + "self_attn.", LAYER + "input_layernorm", options),
        norm(LAYER + "post_attention_layernorm", "residual"),
        gated(DENSE + "mlp.", "{d}", DENSE),
        router(SPARSE + "mlp.gate", SPARSE),
        gated(
            SPARSE + "mlp.experts.{e}.", "expert.{s}.{e}", SPARSE, experts=("e", "experts.{s}")
        ),
        gated(SPARSE + "mlp.shared_experts.", "{s}", SPARSE),
        norm("model.norm", "residual"),
        linear("lm_head", "residual", VOCABULARY, after="model.norm"),
        drafts(options),
        dropped(LAYER + "self_attn.rotary_emb.inv_freq"),
        dropped("model.rotary_emb.inv_freq"),
    )


def attention(prefix: str, first: str, options: Options) -> Rows:
    """The rows of latent attention; its norm first."""
    biased = options.flag("attention_bias")
    latent, latent_query = prefix + "kv_a_layernorm", prefix + "q_a_layernorm"
    queries = table(
        linear(prefix + "q_a_proj", "residual", "latent query.{l}", after=first, bias=biased),
        norm(latent_query, "latent query.{l}"),
        linear(prefix + "q_b_proj", "latent query.{l}", "query.{l}", after=latent_query),
    )
    if not has_latent_queries(options):
        queries = linear(prefix + "q_proj", "residual", "query.{l}", after=first)
    return table(
        norm(first, "residual"),
        queries,
        linear(
            prefix + "kv_a_proj_with_mqa",
            "residual",
            "latent.{l}|rotary key.{l}",
            after=first,
            bias=biased,
        ),
        norm(latent, "latent.{l}"),
        linear(prefix + "kv_b_proj", "latent.{l}", "key value.{l}", after=latent),
        linear(prefix + "o_proj", "mixed.{l}", "residual", bias=biased),
    )


def gated(
    prefix: str, neurons: str, layer: str, *, experts: tuple[str, str] | None = None
) -> Rows:
    """The rows of a gated feed-forward layer."""
    after = layer + "post_attention_layernorm"
    gate, up = f"gate.{neurons}", f"up.{neurons}"
    return table(
        linear(prefix + "gate_proj", "residual", gate, after=after, experts=experts),
        linear(prefix + "up_proj", "residual", up, after=after, experts=experts),
        linear(prefix + "down_proj", up, "residual", experts=experts),
    )


def router(name: str, layer: str) -> Rows:
    """The rows of the router: an expert's score, and what is added to choose by it."""
    return table(
        linear(name, "residual", "experts.{s}", after=layer + "post_attention_layernorm"),
        vector(name + ".e_score_correction_bias", "experts.{s}"),
    )


def drafts(options: Options) -> Rows:
    """The layers that draft tokens ahead: sparse ones with an entry and a head of their own."""
    layer = table(
        attention(DRAFT + "self_attn.", DRAFT + "input_layernorm", options),
        norm(DRAFT + "post_attention_layernorm", "residual"),
        router(DRAFT + "mlp.gate", DRAFT),
        gated(DRAFT + "mlp.experts.{e}.", "", DRAFT),
        gated(DRAFT + "mlp.shared_experts.", "", DRAFT),
    )
    own = ("embed_tokens", "enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.head")
    names = [rule.pattern for rule in layer] + [f"{DRAFT}{name}.weight" for name in own]
    return table(*(dropped(name) for name in names))


def has_latent_queries(options: Options) -> bool:
    """Whether queries pass through a latent of their own."""
    return options.document.get("q_lora_rank", KNOWN["q_lora_rank"]) is not None


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one DeepSeek-V3 configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("hidden_act")
    options.rope()
    for name in ("moe_layer_freq", "scoring_func", "topk_method"):
        options.require(name, options.document.get(name, KNOWN[name]), (KNOWN[name],))
    shape = latent_attention(options, choices.scheme)
    layers, width = options.count("num_hidden_layers"), options.count("hidden_size")
    dense = options.document.get("first_k_dense_replace", KNOWN["first_k_dense_replace"])
    options.require("first_k_dense_replace", dense, range(layers + 1))
    counts = {
        "l": range(layers),
        "d": range(dense),
        "s": range(dense, layers),
        "e": range(options.count("n_routed_experts")),
        "n": range(layers, layers + draft_layers(options)),
    }
    spaces = {
        "residual": residual(
            "residual", width, scheme=choices.scheme, norm=Norm.RMS, new_size=choices.expand
        ),
        **vocabulary_spaces(options.count("vocab_size"), choices),
    }
    for layer in counts["l"]:
        spaces |= shape.spaces(str(layer))
        spaces |= latents(options, layer, choices.scheme)
    for layer in counts["d"]:
        spaces |= neurons(str(layer), options.count("intermediate_size"), choices.scheme)
    for layer in counts["s"]:
        spaces |= mixture(options, layer, choices.scheme)
    return Plan(
        family=MODEL_TYPE,
        task="causal-lm",
        prefix="model.",
        counts=counts,
        width=width,
        vocabulary=options.count("vocab_size"),
        max_positions=options.count("max_position_embeddings"),
        spaces=spaces,
        rules=rows(options, choices),
        output_space=VOCABULARY,
        ties=ties(options, "lm_head.weight", "model.embed_tokens.weight"),
        config={
            "num_nextn_predict_layers": 0,
            **expanded(options, choices, width, shape.rotary_width),
        },
    )


def draft_layers(options: Options) -> int:
    """How many layers draft tokens ahead."""
    name = "num_nextn_predict_layers"
    given = options.document.get(name, KNOWN[name])
    options.require(name, given, range(17))
    return int(given)


def latent_attention(options: Options, scheme: Scheme) -> LatentAttention:
    """The attention of one configuration.

    Raises:
        UnsupportedModelError: heads that share keys, or widths that do not fit.
    """
    heads = options.count("num_attention_heads")
    rotary_width = options.count("qk_rope_head_dim")
    options.require(
        "num_key_value_heads", options.count("num_key_value_heads", default=heads), (heads,)
    )
    options.require(
        "head_dim", options.document.get("head_dim", rotary_width), (None, rotary_width)
    )
    if rotary_width % 2:
        raise UnsupportedModelError(
            f"config.json: 'qk_rope_head_dim' must divide into pairs, got {rotary_width}"
        )
    neighbours = options.document.get("rope_interleave", KNOWN["rope_interleave"])
    return LatentAttention(
        heads=heads,
        free=options.count("qk_nope_head_dim"),
        rotary_width=rotary_width,
        value_width=options.count("v_head_dim"),
        rotary=Rotary.NEIGHBOURS if neighbours else Rotary.HALVES,
        scheme=scheme,
    )


def latents(options: Options, layer: int, scheme: Scheme) -> Mapping[str, Space]:
    """The latents of one layer: what its norm alone looks at, by its length."""
    latent = rotated(f"layer {layer} latent", options.count("kv_lora_rank"), scheme=scheme)
    if not has_latent_queries(options):
        return {f"latent.{layer}": latent}
    queries = rotated(
        f"layer {layer} latent queries", options.count("q_lora_rank"), scheme=scheme
    )
    return {f"latent.{layer}": latent, f"latent query.{layer}": queries}


def mixture(options: Options, layer: int, scheme: Scheme) -> Mapping[str, Space]:
    """The experts of one layer, and the neurons of each of them.

    Raises:
        UnsupportedModelError: experts that do not divide into groups, or groups that have
            too few of them.
    """
    experts, groups = options.count("n_routed_experts"), options.count("n_group")
    chosen, eligible = options.count("num_experts_per_tok"), options.count("topk_group")
    if experts % groups or chosen > eligible * (experts // groups):
        raise UnsupportedModelError(
            f"config.json: expected {experts} experts to divide into {groups} groups, and "
            f"{eligible} groups to have the {chosen} experts of a token; ties between experts "
            f"of the other groups are broken by their order"
        )
    width = options.count("moe_intermediate_size")
    shared = width * options.count("n_shared_experts")
    spaces = {f"experts.{layer}": grouped(f"layer {layer} experts", experts, groups)}
    for expert in range(experts):
        spaces |= neurons(f"expert.{layer}.{expert}", width, scheme)
    return spaces | neurons(str(layer), shared, scheme)


def neurons(name: str, size: int, scheme: Scheme) -> dict[str, Space]:
    """The neurons of one gated feed-forward layer."""
    gate, up = gated_neurons(f"layer {name} neurons", size, scheme=scheme)
    return {f"gate.{name}": gate, f"up.{name}": up}
