"""`adapter_config.json` of a LoRA adapter, in the form that the `peft` library writes.

Read from an allow-list: an option that nobody here knows may change what the adapter computes,
so it is refused unless it is off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triparty.common.errors import UnsupportedModelError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."

# They say how the adapter was trained, who made it, or which modules its tensors belong to.
_WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
_READ = frozenset(
    {
        "alpha_pattern",
        "fan_in_fan_out",
        "init_lora_weights",
        "lora_alpha",
        "lora_bias",
        "peft_type",
        "r",
        "rank_pattern",
        "use_rslora",
    }
)
_OFF: tuple[Any, ...] = (None, False, 0, "none", [], {})
# The others also change the weights of the base model.
_STARTS: tuple[Any, ...] = (True, False, "gaussian", "eva", "orthogonal")
_REMEDIES = {
    "use_dora": "DoRA scales by the norms of keyed columns; merge the adapter into the model "
    "(merge_and_unload) and protect that",
    "bias": "trained biases belong to the base model; merge the adapter into the model "
    "(merge_and_unload) and protect that",
    "modules_to_save": "whole modules belong to the base model; merge the adapter into the "
    "model (merge_and_unload) and protect that",
}


@dataclass(frozen=True)
class AdapterSettings:
    """What an adapter computes: `y += scaling * (B (A x) + bias)` in each of its modules.

    Attributes:
        rank: r of most modules.
        alpha: `scaling` is alpha / r, or alpha / sqrt(r) with `root_scaled`.
        root_scaled: see alpha (rsLoRA).
        ranks: other r by pattern of module names.
        alphas: other alpha by pattern of module names.
        transposed: whether the base layers are stored (in, out), as `Conv1D`.
        biased: whether each B has a bias.
        task_type: of `peft`, or None.
    """

    rank: int
    alpha: float
    root_scaled: bool
    ranks: Mapping[str, Any]
    alphas: Mapping[str, Any]
    transposed: bool
    biased: bool
    task_type: str | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> AdapterSettings:
        """Reads the parsed file.

        Raises:
            UnsupportedModelError: another kind of adapter, or an option without a plan.
        """
        if document.get("peft_type") != "LORA":
            raise UnsupportedModelError(
                f"{CONFIG_FILE}: expected a LoRA adapter (peft_type 'LORA'), got "
                f"{document.get('peft_type')!r}"
            )
        for name in sorted(set(document) - _WITHOUT_EFFECT - _READ):
            if document[name] not in _OFF:
                remedy = _REMEDIES.get(name, "train the adapter without it")
                raise UnsupportedModelError(
                    f"{CONFIG_FILE}: {name!r} is {document[name]!r}, for which there is no "
                    f"plan: {remedy}"
                )
        start = document.get("init_lora_weights", True)
        if start not in _STARTS:
            raise UnsupportedModelError(
                f"{CONFIG_FILE}: init_lora_weights {start!r} also changes the base model; save "
                f"the adapter with path_initial_model_for_weight_conversion, which makes it "
                f"an ordinary one"
            )
        task = document.get("task_type")
        return cls(
            rank=_number(document, "r", 8, int),
            alpha=_number(document, "lora_alpha", 8, int, float),
            root_scaled=document.get("use_rslora") is True,
            ranks=_pattern(document, "rank_pattern"),
            alphas=_pattern(document, "alpha_pattern"),
            transposed=document.get("fan_in_fan_out") is True,
            biased=document.get("lora_bias") is True,
            task_type=task if isinstance(task, str) else None,
        )

    def document(self, modules: Sequence[str], *, biased: bool) -> dict[str, Any]:
        """The protected adapter's file: names modules one by one, and nothing of its origin.

        Args:
            modules: full names.
            biased: whether each B has a bias now.
        """
        return {
            "peft_type": "LORA",
            "task_type": self.task_type,
            "base_model_name_or_path": None,
            "inference_mode": True,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "use_rslora": self.root_scaled,
            "rank_pattern": dict(self.ranks),
            "alpha_pattern": dict(self.alphas),
            "fan_in_fan_out": self.transposed,
            "lora_bias": biased,
            "bias": "none",
            "init_lora_weights": True,
            "target_modules": list(modules),
        }


def _number(document: Mapping[str, Any], name: str, default: int, *kinds: type) -> Any:
    value = document.get(name, default)
    if type(value) not in kinds or not 0 < value < float("inf"):
        raise UnsupportedModelError(
            f"{CONFIG_FILE}: expected {name!r} to be a positive number, got {value!r}"
        )
    return value


def _pattern(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name) or {}
    if not isinstance(value, dict) or not all(
        isinstance(key, str) and type(n) in (int, float) and n > 0 for key, n in value.items()
    ):
        raise UnsupportedModelError(
            f"{CONFIG_FILE}: expected {name!r} to map names to positive numbers, got {value!r}"
        )
    return value
