"""A model of the interface `tokens`, made by hand: one order for its embedding and its head."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from triparty.common import opaque
from triparty.common.deviceinfo import DeviceInfo

ID_MEMBERS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
)


@dataclass(frozen=True, eq=False)
class Permuted:
    """`OUT` with `model` and `device`, and the order between their ids and the source's.

    Attributes:
        out: the folder.
        order: (V,) the keyed id of each plain id.
    """

    out: Path
    order: NDArray[np.int64]

    @property
    def model(self) -> Path:
        return self.out / "model"

    @property
    def device(self) -> Path:
        return self.out / "device"

    def words(self, ids: Any) -> str:
        """The opaque words of plain ids."""
        return opaque.words(self.order[np.asarray(ids, np.int64)])

    def plain(self, words: str) -> list[int]:
        """The plain ids of opaque words."""
        return [int(n) for n in np.argsort(self.order)[opaque.ids(words, len(self.order))]]


def permute(source: Path, out: Path, *, seed: int = 7, **generation: Any) -> Permuted:
    """Writes `out` from a checkpoint; `generation` changes its generation configuration.

    Law: table'[order[i]] = table[i] for embedding and head, and every special id is keyed.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source)
    vocabulary = model.config.vocab_size
    order = np.random.default_rng(seed).permutation(vocabulary)
    tables = {id(table.weight): table.weight for table in _tables(model)}  # tied: once
    with torch.no_grad():
        for weight in tables.values():
            weight[torch.from_numpy(order)] = weight.clone()
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    for config in (model.config, model.generation_config):
        for name in ID_MEMBERS:
            if (value := getattr(config, name, None)) is not None:
                setattr(config, name, _keyed(value, order))
    model.save_pretrained(out / "model")
    for name, data in opaque.tokenizer_files(vocabulary).items():
        (out / "model" / name).write_bytes(data)
    (out / "device").mkdir()
    save_file({"order": order.astype(np.int32)}, out / "device" / "head.safetensors")
    for file in source.glob("tokenizer*.json"):
        shutil.copyfile(file, out / "device" / file.name)
    info = _info(model, order)
    (out / "device" / "device.json").write_bytes(info.to_json())
    return Permuted(out, order)


def _tables(model: Any) -> list[Any]:
    return [model.get_input_embeddings(), model.get_output_embeddings()]


def _keyed(value: Any, order: NDArray[np.int64]) -> Any:
    return [int(order[n]) for n in value] if isinstance(value, list) else int(order[value])


def _info(model: Any, order: NDArray[np.int64]) -> DeviceInfo:
    config, plain = model.config, np.argsort(order)
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return DeviceInfo(
        family=config.model_type,
        interface="tokens",
        width=config.hidden_size,
        vocabulary=config.vocab_size,
        max_positions=config.max_position_embeddings,
        positions=False,
        dtype="float32",
        transport="float32",
        bos_id=None,
        eos_ids=tuple(int(plain[n]) for n in ends),
        pad_id=None,
        chat_template=None,
        replies=(),
        epoch=1,
    )
