"""What a checkpoint says about texts and answers beside its weights, for `encoding.json`.

Sentence encoders come with files of sentence-transformers (`modules.json` and what it names);
classifiers say in `config.json` what their logits mean. What a device could not do exactly is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triparty.common.encodinginfo import EncodingInfo, Pooling, Scores
from triparty.common.errors import CheckpointError, PathError, UnsupportedModelError
from triparty.common.files import safe_relative
from triparty.developer.protect.checkpoints import Checkpoint, read_json, read_json_list

SENTENCES = "sentence-embedding"
CLASSIFIERS = ("sequence-classification", "image-classification")
MODULES_FILE = "modules.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
PROMPTS_FILE = "config_sentence_transformers.json"
_NO_LENGTH = 1 << 20  # tokenizers without a longest text say 10^30
_OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def encoding_of(checkpoint: Checkpoint, task: str) -> EncodingInfo | None:
    """What `encoding.json` will say, or None for a task that has no use for it.

    Raises:
        UnsupportedModelError: a pooling or another step that devices do not do.
        CheckpointError: a file that cannot be read.
    """
    if task == SENTENCES:
        return _of_sentences(checkpoint)
    if task in CLASSIFIERS:
        return EncodingInfo(max_tokens=_longest(checkpoint), scores=_scores(checkpoint.config))
    return None


def _of_sentences(checkpoint: Checkpoint) -> EncodingInfo:
    folder = checkpoint.folder
    transformer = checkpoint.optional_json(TRANSFORMER_FILE)
    pooling, normalise, includes_prompt = Pooling.MEAN, False, True
    for module in _modules(folder):
        match _kind(module):
            case "Transformer":
                continue
            case "Pooling":
                document = read_json(_inside(folder, module) / "config.json")
                pooling = _pooling(document)
                includes_prompt = document.get("include_prompt", True) is not False
            case "Normalize":
                normalise = True
            case other:
                raise UnsupportedModelError(
                    f"{MODULES_FILE}: devices do no step {other!r} after the model; there is: "
                    "Transformer, Pooling, Normalize"
                )
    prompt = _prompt(checkpoint.optional_json(PROMPTS_FILE))
    if prompt and not includes_prompt:
        raise UnsupportedModelError(
            f"{PROMPTS_FILE}: devices cannot leave the default prompt out of the pooling; set "
            "'default_prompt_name' to null if texts are meant to go without"
        )
    return EncodingInfo(
        max_tokens=_positive(transformer.get("max_seq_length")) or _longest(checkpoint),
        lowercase=transformer.get("do_lower_case") is True,
        prompt=prompt,
        pooling=pooling,
        normalise=normalise,
    )


def _modules(folder: Path) -> list[dict[str, Any]]:
    """The steps after each other; none where sentence-transformers has not said any."""
    path = folder / MODULES_FILE
    return read_json_list(path) if path.is_file() else []


def _kind(module: Mapping[str, Any]) -> str:
    """The class of a step without its package, which moved between versions."""
    return str(module.get("type")).rpartition(".")[2]


def _inside(folder: Path, module: Mapping[str, Any]) -> Path:
    try:
        return folder / safe_relative(str(module.get("path")))
    except PathError as error:
        raise CheckpointError(f"{MODULES_FILE}: {error.message}") from error


def _pooling(document: Mapping[str, Any]) -> Pooling:
    """The one mode that a pooling's configuration switches on."""
    named = document.get("pooling_mode")
    modes = [mode for name, mode in _OLD_MODES.items() if document.get(name) is True]
    if named is not None:
        modes = named if isinstance(named, list) else [named]
    if len(modes) != 1 or str(modes[0]) not in set(Pooling):
        raise UnsupportedModelError(
            f"devices pool by one of {', '.join(Pooling)}; this model wants "
            f"{', '.join(map(str, modes)) or 'nothing'}"
        )
    return Pooling(modes[0])


def _prompt(document: Mapping[str, Any]) -> str:
    """What sentence-transformers puts before every text unless it is told otherwise."""
    name, prompts = document.get("default_prompt_name"), document.get("prompts")
    if name is None:
        return ""
    prompt = prompts.get(name) if isinstance(prompts, dict) else None
    if not isinstance(prompt, str):
        raise CheckpointError(f"{PROMPTS_FILE}: 'prompts' has no text {name!r}")
    return prompt


def _longest(checkpoint: Checkpoint) -> int | None:
    """The longest text of the tokenizer's configuration, if it has one."""
    longest = checkpoint.optional_json("tokenizer_config.json").get("model_max_length")
    return _positive(longest if type(longest) is int and longest < _NO_LENGTH else None)


def _positive(value: object) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise CheckpointError(f"expected a longest text in tokens, got {value!r}")
    return value


def _scores(config: Mapping[str, Any]) -> Scores:
    """As the pipelines of `transformers` choose."""
    kind = config.get("problem_type")
    named = config.get("id2label")
    labels = len(named) if isinstance(named, dict) else config.get("num_labels", 2)
    if kind == "regression":
        return Scores.NONE
    if kind == "multi_label_classification" or labels == 1:
        return Scores.SIGMOID
    return Scores.SOFTMAX
