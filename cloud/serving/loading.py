"""Opens a published folder with stock transformers classes, trusting nothing in it.

The folder comes from a developer whom the operator does not trust. So: only families on the
list below, by their stock class; only safetensors; the configuration is rebuilt from the
keys that the stock class declares, so that no class name, code reference, file name or
option outside of them is ever acted on; every tensor's name and shape is compared with the
model's before any weight is allocated; the hub is off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: it reads it once

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from triparty.cloud.serving import attention
from triparty.cloud.serving.text import TextRules, is_opaque_tokenizer
from triparty.common import opaque
from triparty.common.errors import CheckpointError, FileTypeError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

FAMILIES: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "gpt2": (GPT2Config, GPT2LMHeadModel),
    "llama": (LlamaConfig, LlamaForCausalLM),
}
"""The served families: `model_type` -> stock configuration and model."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# Static tables only: `dynamic` and `longrope` choose frequencies from the longest sequence
# in the batch, so that one session's length would change another session's answers.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")

_LEGACY_KEYS = ("rope_theta", "rope_scaling")
_REFUSED_KEYS = ("auto_map", "quantization_config", "per_layer_config", "adapter_config")
_REFUSED_FILES = ("adapter_config.json",)
_REFUSED_SUFFIXES = (
    ".bin",
    ".pt",
    ".pth",
    ".pkl",
    ".pickle",
    ".ckpt",
    ".py",
    ".h5",
    ".msgpack",
)
_CONFIG_LIMIT_BYTES = 1 << 20
_INDEX_LIMIT_BYTES = 64 << 20
_TOKENIZER_LIMIT_BYTES = 64 << 20
# What stock classes raise on a configuration that makes no sense.
_FOREIGN = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
_INPUT_EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight")


def load_model(folder: Path, *, device: torch.device) -> PreTrainedModel:
    """The model in a folder, in evaluation mode, with packed attention.

    Args:
        folder: verified files laid out as a Hugging Face checkpoint.
        device: where the weights go.

    Raises:
        UnsupportedModelError: a family or option that is not served.
        FileTypeError: a file that could hold code.
        CheckpointError: a configuration or weights that do not fit together.
    """
    _check_files(folder)
    raw = _read_json(folder / "config.json", limit_bytes=_CONFIG_LIMIT_BYTES)
    config_class, model_class = _family(raw)
    config = _config(raw, config_class)
    _check_tensors(folder, config, model_class)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model: PreTrainedModel = model_class.from_pretrained(
            folder,
            config=config,
            attn_implementation=attention.NAME,
            dtype=config.dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (*_FOREIGN, OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint cannot be loaded: {_first_line(error)}"
        ) from error
    torch.nn.Module.to(model, device)  # transformers hides its signature
    model.requires_grad_(False)
    return model  # in evaluation mode: `from_pretrained` leaves it so


def load_text_rules(folder: Path, *, vocabulary: int) -> TextRules | None:
    """How a model generates from ids; None unless its folder has the opaque tokenizer.

    Args:
        folder: as for `load_model`.
        vocabulary: V, of its configuration.

    Raises:
        CheckpointError: rules that cannot be read.
    """
    tokenizer = folder / opaque.TOKENIZER_FILE
    if not tokenizer.is_file() or tokenizer.stat().st_size > _TOKENIZER_LIMIT_BYTES:
        return None
    if not is_opaque_tokenizer(tokenizer.read_bytes(), vocabulary=vocabulary):
        return None
    name = "generation_config.json"
    path = folder / (name if (folder / name).is_file() else "config.json")
    generation = _read_json(path, limit_bytes=_CONFIG_LIMIT_BYTES)
    return TextRules.of(generation, vocabulary=vocabulary)


def _check_files(folder: Path) -> None:
    for path in folder.iterdir():
        if path.suffix in _REFUSED_SUFFIXES:
            raise FileTypeError(
                f"{path.name} could hold code: publish the weights as safetensors only"
            )
        if path.name in _REFUSED_FILES:
            raise UnsupportedModelError(
                f"{path.name}: adapters are not served, merge them into the checkpoint"
            )


def _read_json(path: Path, *, limit_bytes: int) -> dict[str, Any]:
    try:
        if path.stat().st_size > limit_bytes:
            raise CheckpointError(f"{path.name} is larger than {limit_bytes} bytes")
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"the checkpoint has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {_first_line(error)}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path.name} is not a JSON object")
    return document


def _family(raw: Mapping[str, Any]) -> tuple[type[PreTrainedConfig], type[PreTrainedModel]]:
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise UnsupportedModelError(
            f"model_type {family!r} is not served; served are {', '.join(FAMILIES)}"
        )
    return FAMILIES[family]


def _config(raw: Mapping[str, Any], kind: type[PreTrainedConfig]) -> PreTrainedConfig:
    """The configuration, from the keys that the stock class itself declares."""
    if refused := [key for key in _REFUSED_KEYS if raw.get(key) is not None]:
        raise UnsupportedModelError(f"config key '{refused[0]}' is not served; remove it")
    known = {*kind.__annotations__, *kind.attribute_map, *_LEGACY_KEYS}
    dtype = raw.get("dtype", raw.get("torch_dtype", "float32"))
    if dtype not in DTYPES:
        raise UnsupportedModelError(f"dtype {dtype!r} is not served; served are {list(DTYPES)}")
    try:
        config = kind(**{key: value for key, value in raw.items() if key in known})
    except _FOREIGN as error:
        raise CheckpointError(f"config.json is not valid: {_first_line(error)}") from error
    config.dtype = DTYPES[dtype]
    config.use_cache = False
    if getattr(config, "add_cross_attention", False):
        raise UnsupportedModelError("a decoder with cross-attention is not served")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in ROPE_TYPES:
        raise UnsupportedModelError(
            f"rope_type {rope.get('rope_type')!r} is not served; served are {ROPE_TYPES}"
        )
    return config


def _check_tensors(folder: Path, config: PreTrainedConfig, kind: type[PreTrainedModel]) -> None:
    """Compares the names and shapes in the files with the model's, before allocating it."""
    found = _shapes(folder)
    if config.num_hidden_layers > len(found):
        raise CheckpointError(
            f"{config.num_hidden_layers} layers, but the files have {len(found)} tensors"
        )
    try:
        with torch.device("meta"):
            model = kind(config)
    except _FOREIGN as error:
        raise CheckpointError(f"config.json is not valid: {_first_line(error)}") from error
    tied = set(model.all_tied_weights_keys)
    for name, tensor in model.state_dict().items():
        shape = found.get(name, found.get(name.partition(".")[2]))  # with or without prefix
        if shape is None and name not in tied and name not in _INPUT_EMBEDDINGS:
            raise CheckpointError(f"the checkpoint has no tensor {name}")
        if shape is not None and shape != tuple(tensor.shape):
            raise CheckpointError(
                f"tensor {name} has shape {shape}, expected {tuple(tensor.shape)}"
            )


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - a safe_open is no mapping
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path.name}: {_first_line(error)}") from error
    return shapes


def _weight_files(folder: Path) -> Iterator[Path]:
    single = folder / "model.safetensors"
    if single.is_file():
        yield single
        return
    index = _read_json(folder / "model.safetensors.index.json", limit_bytes=_INDEX_LIMIT_BYTES)
    names = index.get("weight_map")
    if not isinstance(names, dict):
        raise CheckpointError("model.safetensors.index.json has no weight_map")
    for name in sorted({str(name) for name in names.values()}):
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(f"weight_map names {name!r}, which is not a file beside it")
        yield folder / name


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
