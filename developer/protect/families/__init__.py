"""Model families, a file and a table each; which one a checkpoint belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.families import gpt2, llama
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import Plan


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        model_type: as in `config.json`.
        architecture: the one class that the plan covers.
        known: options that the plan covers, with their defaults in `transformers`.
        plan: makes the plan of a configuration.
    """

    model_type: str
    architecture: str
    known: Mapping[str, Any]
    plan: Callable[[Options], Plan]


FAMILIES: Mapping[str, Family] = {
    module.MODEL_TYPE: Family(module.MODEL_TYPE, module.ARCHITECTURE, module.KNOWN, module.plan)
    for module in (gpt2, llama)
}


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a parsed `config.json`.

    Raises:
        UnsupportedModelError: a family or a class without a plan.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise UnsupportedModelError(
            f"there is no plan for model_type {config.get('model_type')!r}; "
            f"there is one for: {', '.join(sorted(FAMILIES))}"
        )
    given = config.get("architectures") or [family.architecture]
    # A checkpoint of the bare model is one of the causal LM whose head is tied.
    bare = family.architecture.replace("ForCausalLM", "Model").replace("LMHeadModel", "Model")
    if given not in ([family.architecture], [bare]):
        raise UnsupportedModelError(
            f"there is no plan for architectures {given!r} of family "
            f"{family.model_type!r}; there is one for: {family.architecture}"
        )
    return family
