"""Model families, a file and a table each; which one a checkpoint belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families import (
    bert,
    clip,
    deepseek_v3,
    gemma,
    gemma2,
    gemma3,
    gpt2,
    llama,
    llava,
    longformer,
    mistral,
    mixtral,
    mt5,
    qwen2,
    qwen3,
    t5,
    vit,
)
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import Plan

RENAMED: Mapping[str, str] = {"T5WithLMHeadModel": "T5ForConditionalGeneration"}
"""Names that `transformers` once had for classes, and the ones that it has now."""


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        model_type: as in `config.json`.
        architectures: the classes that the plan covers. A checkpoint of the bare model that
            is not among them is one of the first class, its head tied.
        known: options that the plan covers, with their defaults in `transformers`.
        plan: makes the plan of a configuration, for one of the classes.
    """

    model_type: str
    architectures: tuple[str, ...]
    known: Mapping[str, Any]
    plan: Callable[[Options, Choices, str], Plan]


FAMILIES: Mapping[str, Family] = {
    module.MODEL_TYPE: Family(
        module.MODEL_TYPE, module.ARCHITECTURES, module.KNOWN, module.plan
    )
    for module in (
        bert,
        clip,
        deepseek_v3,
        gemma,
        gemma2,
        gemma3,
        gpt2,
        llama,
        llava,
        longformer,
        mistral,
        mixtral,
        mt5,
        qwen2,
        qwen3,
        t5,
        vit,
    )
}


def family_of(config: Mapping[str, Any]) -> tuple[Family, str]:
    """The family of a parsed `config.json`, and the class of the model.

    Raises:
        UnsupportedModelError: a family or a class without a plan.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise UnsupportedModelError(
            f"config.json: there is no plan for model_type {config.get('model_type')!r}; "
            f"there is one for: {', '.join(sorted(FAMILIES))}; take a checkpoint of one of "
            "these, or add a family (docs/adding-a-family.md)"
        )
    first = family.architectures[0]
    named = config.get("architectures") or [first]
    given = [RENAMED.get(n, n) if isinstance(n, str) else n for n in named]
    if given in ([name] for name in family.architectures):
        return family, str(given[0])
    if given == [first.partition("For")[0].removesuffix("LMHeadModel") + "Model"]:
        return family, first
    raise UnsupportedModelError(
        f"config.json: there is no plan for architectures {named!r} of family "
        f"{family.model_type!r}; there is one for: {', '.join(family.architectures)}; load the "
        "checkpoint as one of these with transformers, and save that"
    )
