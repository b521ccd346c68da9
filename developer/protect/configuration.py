"""The cloud's `config.json` and `generation_config.json`.

With the interface `embeddings`, special tokens stay with the device. With `tokens`, the cloud
must know after which keyed id an answer ends, and which ones never to say: they are written
as keyed ids, and what else a generation configuration says is copied from an allow-list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import CheckpointError
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import Plan

SPECIAL_IDS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
)
ID_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")
GENERATION = (
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "num_beams",
    "remove_invalid_values",
    "renormalize_logits",
    "repetition_penalty",
    "temperature",
    "top_h",
    "top_k",
    "top_p",
    "typical_p",
)


def hosted_config(
    options: Options, plan: Plan, architecture: str, order: NDArray[np.int64] | None
) -> dict[str, Any]:
    """The `config.json` of the protected model.

    Args:
        options: of the source.
        plan: its plan.
        architecture: class of the protected model.
        order: (V,) the keyed id of each token id, if the cloud may know special ids.
    """
    config = {**options.kept(), **_special_ids(options.document, order)}
    for name, (model_type, section) in options.sections().items():
        ids = _special_ids(section.document, order)
        kind = {"model_type": model_type, "tie_word_embeddings": False}
        config[name] = {**section.kept(), **ids, **kind}
    for path, number in plan.token_ids.items():
        section_name, _, name = path.rpartition(".")
        holder = config[section_name] if section_name else config
        holder[name] = 0 if order is None else keyed(number, order)
    dtype = options.document.get("dtype", options.document.get("torch_dtype"))
    return {
        **config,
        **({"dtype": dtype} if dtype is not None else {}),
        "model_type": plan.family,
        "architectures": [architecture],
        "tie_word_embeddings": False,
        **plan.config,
    }


def _special_ids(
    document: Mapping[str, Any], order: NDArray[np.int64] | None
) -> dict[str, Any]:
    """The special ids of a configuration, keyed, or null if the cloud may not know them."""
    ids: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    if order is not None:
        ids |= {name: keyed(document[name], order) for name in SPECIAL_IDS if name in document}
    return ids


def hosted_generation(document: Mapping[str, Any], order: NDArray[np.int64]) -> dict[str, Any]:
    """The `generation_config.json` of a model that takes keyed ids.

    Args:
        document: the source's, or nothing.
        order: (V,) the keyed id of each token id.
    """
    ids = {name: keyed(document[name], order) for name in SPECIAL_IDS if name in document}
    lists = {name: keyed(document[name], order) for name in ID_LISTS if name in document}
    return {name: document[name] for name in GENERATION if name in document} | ids | lists


def keyed(value: object, order: NDArray[np.int64]) -> Any:
    """Token ids, alone or in (nested) lists, as keyed ids.

    Ids that the table has no row of (-1, a padding token beside the table) mean nothing to
    the model and become null, or are left out of their list; a sequence that has one never
    occurs and is left out whole.

    Raises:
        CheckpointError: something that is no token id.
    """
    if value is None:
        return None
    if isinstance(value, list):
        known = [each for each in value if _is_known(each, len(order))]
        return [keyed(each, order) for each in known]
    if type(value) is not int:
        raise CheckpointError(f"config: expected a token id or a list of them, got {value!r}")
    return int(order[value]) if 0 <= value < len(order) else None


def _is_known(value: object, vocabulary: int) -> bool:
    """Whether a token id, or every one of a sequence, has a row; others are found later."""
    if isinstance(value, list):
        return all(_is_known(one, vocabulary) for one in value)
    return value is not None and (type(value) is not int or 0 <= value < vocabulary)
