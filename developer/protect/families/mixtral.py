"""The symmetry plan of Mixtral (`MixtralForCausalLM`).

Mistral with experts: a router picks some for each token, and each is a gated feed-forward.
Experts trade places with the router's rows, and each has a key of its own for its neurons.
Checkpoints name experts one by one, as `save_pretrained` writes them too.

A row that is added to all rows of the router shifts its logits alike, so that softmax, the
experts that are picked and their renormalised weights stay. It is not drawn: whoever takes the
mean of the rows away is rid of it (see `docs/decisions/0009-gauges-left-out.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families.decoder import LAYER, decoder_plan, rotary_buffers
from triparty.developer.protect.families.shared import lookup
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import Rows, linear, norm, table
from triparty.developer.protect.spaces import Space, gated_neurons, permuted

MODEL_TYPE = "mixtral"
ARCHITECTURES = ("MixtralForCausalLM",)

# Options that the plan covers, with their defaults in `transformers`.
KNOWN: Mapping[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "router_jitter_noise": 0.0,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "tie_word_embeddings": False,
}

EXPERTS = ("e", "experts.{l}")


def rows(choices: Choices) -> Rows:
    """The table of Mixtral."""
    first, second = LAYER + "input_layernorm", LAYER + "post_attention_layernorm"
    attention, moe = LAYER + "self_attn.", LAYER + "block_sparse_moe."
    expert, gate, up = moe + "experts.{e}.", "gate.{l}.{e}", "up.{l}.{e}"
    return table(
        lookup("model.embed_tokens.weight", "ids", "residual", "rows", choices),
        norm(first, "residual"),
        linear(attention + "q_proj", "residual", "query.{l}", after=first),
        linear(attention + "k_proj", "residual", "key.{l}", after=first),
        linear(attention + "v_proj", "residual", "value.{l}", after=first),
        linear(attention + "o_proj", "mixed.{l}", "residual"),
        norm(second, "residual"),
        linear(moe + "gate", "residual", "experts.{l}", after=second),  # the router
        linear(expert + "w1", "residual", gate, after=second, experts=EXPERTS),
        linear(expert + "w3", "residual", up, after=second, experts=EXPERTS),
        linear(expert + "w2", up, "residual", experts=EXPERTS),
        norm("model.norm", "residual"),
        linear("lm_head", "residual", VOCABULARY, after="model.norm"),
        rotary_buffers(),
    )


def expert_layers(options: Options, choices: Choices) -> Mapping[str, Space]:
    """The order of a layer's experts, `experts.{l}`, and the neurons of each."""
    neurons, experts = options.count("intermediate_size"), options.count("num_local_experts")
    spaces: dict[str, Space] = {}
    for layer in range(options.count("num_hidden_layers")):
        spaces[f"experts.{layer}"] = permuted(f"layer {layer} experts", experts)
        for expert in range(experts):
            label = f"layer {layer} expert {expert} neurons"
            gate, up = gated_neurons(label, neurons, scheme=choices.scheme)
            spaces |= {f"gate.{layer}.{expert}": gate, f"up.{layer}.{expert}": up}
    return spaces


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one Mixtral configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("hidden_act")
    options.rope()
    return decoder_plan(
        MODEL_TYPE,
        rows(choices),
        expert_layers(options, choices),
        options,
        choices,
        counts={"e": range(options.count("num_local_experts"))},
    )
