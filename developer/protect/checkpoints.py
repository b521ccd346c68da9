"""Checkpoints in: a Hugging Face folder or a hub id, safetensors only, memory-mapped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triparty.common.errors import CheckpointError, FileTypeError, PathError
from triparty.common.files import safe_relative
from triparty.common.tensorfile import TensorEntry, TensorFile

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
SLOW_TOKENIZER_FILES = ("tokenizer.model", "vocab.json", "merges.txt", "spiece.model")
POOLING_FILES = "*_Pooling/config.json"
DOWNLOADED = (
    "*.safetensors",
    INDEX_FILE,
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    POOLING_FILES,
    *TOKENIZER_FILES,
    *SLOW_TOKENIZER_FILES,
)
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder whose tensor files have been checked.

    Attributes:
        folder: where it lies.
        config: its parsed `config.json`.
        shards: its tensor files, in order of their names.
    """

    folder: Path
    config: Mapping[str, Any]
    shards: tuple[TensorFile, ...]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Opens a folder without reading a tensor.

        Raises:
            CheckpointError: a file is missing or contradicts another.
            FileTypeError: pickled weights, or a broken tensor file.
        """
        config = read_json(folder / "config.json")
        paths = _shards(folder, config)
        return cls(folder, config, tuple(TensorFile.open(path) for path in paths))

    @property
    def entries(self) -> dict[str, TensorEntry]:
        """Every tensor by its name in the checkpoint."""
        return {name: entry for shard in self.shards for name, entry in shard.entries.items()}

    def optional_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder, or an empty document if it is absent."""
        path = self.folder / name
        return read_json(path) if path.is_file() else {}


def fetch(source: str) -> Path:
    """The folder of a checkpoint, downloaded first if `source` is a hub id.

    Args:
        source: a folder, or `organisation/name` on the Hugging Face hub; `HF_HUB_OFFLINE`,
            `HF_HOME` and `HF_TOKEN` are respected.

    Raises:
        CheckpointError: neither a folder nor a model that can be reached.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise CheckpointError(
            f"{source} is not a folder with a checkpoint: name one, or a hub id (as "
            "organisation/name)"
        )
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        return Path(snapshot_download(source, allow_patterns=list(DOWNLOADED)))
    except HFValidationError as error:
        raise CheckpointError(f"{source} is neither a folder nor a hub id") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HTTPError, OSError) as error:
        why = "no such model, or no right to read it"
        if not isinstance(error, HfHubHTTPError):
            why = "it is not in the local cache and the hub is not reached (offline?)"
        raise CheckpointError(
            f"{source} is no folder, and as a hub id: {why}; download the checkpoint to a "
            f"folder and name that"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint folder.

    Raises:
        CheckpointError: absent or not a JSON object.
    """
    document = _parsed(path)
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} is not a JSON object: download it again")
    return document


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """A JSON list of objects of a checkpoint folder.

    Raises:
        CheckpointError: absent or not such a list.
    """
    document = _parsed(path)
    if not isinstance(document, list) or not all(isinstance(one, dict) for one in document):
        raise CheckpointError(f"{path} is not a list of JSON objects: download it again")
    return document


def _parsed(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent} is no checkpoint: it has no {path.name}; name the folder that has "
            "it beside its safetensors files, or a hub id"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: download it again") from error


def tokenizer_files(folder: Path) -> list[Path]:
    """The tokenizer files that a device needs.

    Raises:
        CheckpointError: there is no `tokenizer.json`.
    """
    if (folder / TOKENIZER_FILES[0]).is_file():
        return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    slow = [name for name in SLOW_TOKENIZER_FILES if (folder / name).is_file()]
    what = f"only {', '.join(slow)}, which a device cannot read" if slow else "no tokenizer"
    raise CheckpointError(
        f'{folder} has {what}; it needs tokenizer.json: python -c "from transformers import '
        f"AutoTokenizer as T; T.from_pretrained('SRC').save_pretrained('SRC')\" makes one"
    )


def _shards(folder: Path, config: Mapping[str, Any]) -> list[Path]:
    index = folder / INDEX_FILE
    if index.is_file():
        return _indexed(folder, read_json(index).get("weight_map"))
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
    if pickled:
        raise FileTypeError(
            f"{folder} has its weights in {pickled[0]}, a pickle, which can run code when it "
            f"is read; convert it where you trust it: {_to_safetensors(config)}"
        )
    parts = sum(path.suffix == ".safetensors" for path in folder.iterdir())
    raise CheckpointError(
        f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}, which names the tensors of "
        f"several files (there are {parts}): download the checkpoint again, all of its files"
    )


def _to_safetensors(config: Mapping[str, Any]) -> str:
    """How pickled weights are converted: by the class that the checkpoint is of."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    kind = first if isinstance(first, str) and first.isidentifier() else "AutoModel"
    return (
        f"python -c \"from transformers import {kind} as M; M.from_pretrained('SRC')"
        f".save_pretrained('NEW')\" writes safetensors; copy the tokenizer's files to NEW"
    )


def _indexed(folder: Path, weight_map: object) -> list[Path]:
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{folder / INDEX_FILE} has no 'weight_map': download it again")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        try:
            safe_relative(name)
        except PathError as error:
            raise CheckpointError(f"{folder / INDEX_FILE}: {error.message}") from error
        if "/" in name or not name.endswith(".safetensors") or not (folder / name).is_file():
            raise CheckpointError(
                f"{folder / INDEX_FILE} names {name!r}, which is not there: download it"
            )
    held = {tensor: name for name in names for tensor in TensorFile.open(folder / name).entries}
    if held != weight_map:
        odd = sorted(set(held.items()) ^ set(weight_map.items()))[0][0]
        raise CheckpointError(
            f"{folder / INDEX_FILE} and the files disagree about {odd!r}; download the "
            f"checkpoint again"
        )
    return [folder / name for name in names]
