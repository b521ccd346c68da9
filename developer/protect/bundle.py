"""The device's files: keyed tables, the way back to plain logits, the tokenizer.

The table is `E R`, not `E` and `R`: on the wire it makes no difference, and a device that is
lost or shared has given away the keyed table of one epoch, not the residual key as such.
(Whoever has `E` as well finds the key by comparing the two: `developer audit` shows it.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.errors import CheckpointError
from triparty.common.files import write_atomic
from triparty.common.keying import DEVICE_FILE, EMBEDDING_FILE, HEAD_FILE
from triparty.common.tensorfile import TensorEntry
from triparty.developer.protect.checkpoints import Checkpoint, tokenizer_files
from triparty.developer.protect.output import Pieces, write_tensors
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.transforms import SignedPermutation

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
REPLIES = ("logits", "topk", "id")


def device_info(
    checkpoint: Checkpoint, plan: Plan, *, dtype: str, interface: str, epoch: int
) -> DeviceInfo:
    """What `device.json` will say.

    Args:
        checkpoint: the source.
        plan: its plan.
        dtype: of the embedding, as the tensor format names it.
        interface: `embeddings`.
        epoch: generation of the key.

    Raises:
        CheckpointError: special ids or the chat template make no sense.
    """
    generation = {**checkpoint.config, **checkpoint.optional_json("generation_config.json")}
    # The sum of two 16-bit rows is sent unrounded, so that a cloud that computes in float32
    # gets what the plain model would have added up in float32.
    transport = DTYPES[dtype] if plan.positions is None else "float32"
    return DeviceInfo(
        family=plan.family,
        interface=interface,
        width=plan.width,
        vocabulary=plan.vocabulary,
        max_positions=plan.max_positions,
        positions=plan.positions is not None,
        dtype=DTYPES[dtype],
        transport=transport,
        bos_id=_first(_ids(generation, "bos_token_id", plan.vocabulary)),
        eos_ids=_ids(generation, "eos_token_id", plan.vocabulary),
        pad_id=_first(_ids(generation, "pad_token_id", plan.vocabulary)),
        chat_template=_chat_template(checkpoint),
        replies=REPLIES,
        epoch=epoch,
    )


def write_bundle(
    folder: Path,
    info: DeviceInfo,
    tables: Mapping[str, tuple[TensorEntry, Pieces]],
    vocabulary: SignedPermutation,
    source: Path,
) -> None:
    """Writes the device's folder.

    Args:
        folder: where; exists and is empty.
        info: for `device.json`.
        tables: `rows`, and `positions` if the family has them, keyed.
        vocabulary: the key of the head's rows.
        source: the folder with the tokenizer.
    """
    write_tensors(
        folder / EMBEDDING_FILE,
        {name: entry for name, (entry, _) in tables.items()},
        {name: pieces for name, (_, pieces) in tables.items()},
    )
    order = vocabulary.order().astype("<i4")

    def once() -> Iterator[NDArray[np.int32]]:
        yield order

    entry = TensorEntry("I32", order.shape, 0)
    write_tensors(folder / HEAD_FILE, {"order": entry}, {"order": once})
    for file in tokenizer_files(source):
        write_atomic(folder / file.name, _without_paths(file))
    write_atomic(folder / DEVICE_FILE, info.to_json())


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


def _first(ids: tuple[int, ...]) -> int | None:
    return ids[0] if ids else None


def _chat_template(checkpoint: Checkpoint) -> str | None:
    file = checkpoint.folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = checkpoint.optional_json("tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several named ones; the unnamed use is "default"
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise CheckpointError("tokenizer_config.json: 'chat_template' must be text")
    return template
