"""The device's files: keyed tables, the way back to plain logits, the tokenizer.

The table is `E R`, not `E` and `R`: on the wire it makes no difference, and a device that is
lost or shared has given away the keyed table of one epoch, not the residual key as such.
(Whoever has `E` as well finds the key by comparing the two: `developer audit` shows it.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import HIDDEN, DeviceInfo, HeadInfo
from triparty.common.encodinginfo import EncodingInfo
from triparty.common.errors import CheckpointError
from triparty.common.files import write_atomic
from triparty.common.keying import (
    DEVICE_FILE,
    ENCODING_FILE,
    HEAD_FILE,
    LABELS_FILE,
    PATCHES_FILE,
    PREPROCESSOR_FILE,
    VOCABULARY_ORDER,
)
from triparty.developer.protect.checkpoints import Checkpoint, tokenizer_files
from triparty.developer.protect.choices import Choices, Interface
from triparty.developer.protect.output import write_arrays, write_json
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.preprocessing import preprocessing
from triparty.developer.protect.transforms import Monomial, Transform

REPLIES = ("logits", "topk", "id")


def device_info(
    checkpoint: Checkpoint, plan: Plan, choices: Choices, *, dtype: str
) -> DeviceInfo:
    """What `device.json` will say.

    Args:
        checkpoint: the source.
        plan: its plan.
        choices: what the developer chose.
        dtype: of the tables that the device looks up.

    Raises:
        CheckpointError: special ids or the chat template make no sense.
    """
    generation = {
        **checkpoint.config.get("text_config", {}),
        **checkpoint.config,
        **checkpoint.optional_json("generation_config.json"),
        **{path.rpartition(".")[2]: number for path, number in plan.token_ids.items()},
    }
    embeds = choices.interface is Interface.EMBEDDINGS
    names = plan.device_tables()
    # The sum of two 16-bit rows is sent unrounded, so that a cloud that computes in float32
    # gets what the plain model would have added up in float32. Pixels are float32 as well.
    rounds = dtype == "float64" or len(names) > 1 or not plan.vocabulary
    return DeviceInfo(
        family=plan.family,
        task=plan.task,
        interface=choices.interface.value,
        width=choices.expand or plan.width,
        vocabulary=plan.vocabulary,
        outputs=plan.spaces[plan.output_space].size,
        max_positions=plan.max_positions,
        positions="positions" in names,
        segments=plan.shape_of(names["types"].pattern)[0] if "types" in names else 0,
        image=plan.image,
        dtype=dtype,
        transport="float32" if rounds else dtype,
        bos_id=_start(generation, plan),
        eos_ids=_ids(generation, "eos_token_id", plan.vocabulary),
        pad_id=_first(_ids(generation, "pad_token_id", plan.vocabulary)),
        chat_template=_chat_template(checkpoint),
        replies=_replies(plan, choices) if embeds else (),
        epoch=choices.epoch,
        head=None if plan.device_head is None else HeadInfo(plan.device_head.softcap),
    )


def write_bundle(
    folder: Path,
    info: DeviceInfo,
    head: Mapping[str, NDArray[Any]] | None,
    source: Path,
    *,
    mix: NDArray[np.float64] | None = None,
    labels: Sequence[str] = (),
    encoding: EncodingInfo | None = None,
) -> None:
    """Writes the device's folder, but for the tables that the device looks up.

    Args:
        folder: where; exists.
        info: for `device.json`.
        head: how answers are undone; see `answers`. None if the device has the head itself,
            whose file is written already.
        source: the folder with the tokenizer.
        mix: (P, P) by which a device mixes the pixels of a patch, if the model takes images.
        labels: names of the answers, if they have some.
        encoding: for `encoding.json`, if the model has a use for it.
    """
    if head is not None:
        write_arrays(folder / HEAD_FILE, head)
    if mix is not None:
        write_arrays(folder / PATCHES_FILE, {"mix": mix})
        write_json(folder / PREPROCESSOR_FILE, preprocessing(source))
    if labels:
        names = json.dumps(labels, indent=2, ensure_ascii=False)
        write_atomic(folder / LABELS_FILE, names.encode())
    if encoding is not None:
        write_atomic(folder / ENCODING_FILE, encoding.to_json())
    if info.vocabulary:
        for file in tokenizer_files(source):
            write_atomic(folder / file.name, _without_paths(file))
    write_atomic(folder / DEVICE_FILE, info.to_json())


def answers(output: Transform, tokens: Monomial | None) -> dict[str, NDArray[Any]]:
    """The tensors of `head.safetensors`; `common.keying` says how they are used.

    Args:
        output: transform of the answer's last axis.
        tokens: transform of token ids, where the device sends ids and the answer is about
            something else.
    """
    head: dict[str, NDArray[Any]] = {}
    if isinstance(output, Monomial):
        head["order"] = output.order().astype("<i4")
        if output.factor is not None:
            head["scales"] = output.factor.astype("<f4")
    else:
        inverse = output.dual().apply(np.eye(output.size), 1)
        head["weight"] = np.ascontiguousarray(inverse.astype("<f8"))
    if tokens is not None:
        head[VOCABULARY_ORDER] = tokens.order().astype("<i4")
    return head


def _replies(plan: Plan, choices: Choices) -> tuple[str, ...]:
    """Scaled logits cannot be compared with each other before the scales are undone."""
    if plan.device_head is not None:
        return (HIDDEN,)
    writes_text = plan.task in ("causal-lm", "seq2seq-lm")
    return REPLIES if writes_text and not choices.head_scales else ("logits",)


def _without_paths(file: Path) -> bytes:
    data = file.read_bytes()
    if file.name == "tokenizer.json":
        return data
    document = json.loads(data)
    if isinstance(document, dict):
        document.pop("name_or_path", None)
        document.pop("_name_or_path", None)
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def _ids(options: Mapping[str, Any], name: str, vocabulary: int) -> tuple[int, ...]:
    value = options.get(name)
    ids = value if isinstance(value, list) else [value] if value is not None else []
    if not all(type(n) is int and n >= -1 for n in ids):
        raise CheckpointError(f"config: {name!r} must be token ids, got {value!r}")
    # Some checkpoints name -1, or a padding token that their table has no row for.
    return tuple(n for n in ids if 0 <= n < vocabulary)


def _start(options: Mapping[str, Any], plan: Plan) -> int | None:
    """The token that a text begins with, or, of a model with a decoder, an answer."""
    begins = _ids(options, "bos_token_id", plan.vocabulary)
    if plan.task != "seq2seq-lm":
        return _first(begins)
    start = _first(_ids(options, "decoder_start_token_id", plan.vocabulary) + begins)
    if start is None:
        raise CheckpointError(
            "config: expected 'decoder_start_token_id', the token that answers begin with"
        )
    return start


def _first(ids: tuple[int, ...]) -> int | None:
    return ids[0] if ids else None


def _chat_template(checkpoint: Checkpoint) -> str | None:
    file = checkpoint.folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):  # the former of old processors
        template = checkpoint.optional_json(name).get("chat_template")
        if template is not None:
            break
    if isinstance(template, list):  # several named ones; the unnamed use is "default"
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise CheckpointError("tokenizer_config.json: 'chat_template' must be text")
    return template
