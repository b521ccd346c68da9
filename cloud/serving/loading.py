"""Opens a published folder with stock transformers classes, trusting nothing in it.

The folder comes from a developer whom the operator does not trust. So: only families on a
list (`families.py`, `encoder_families.py`, `visual_families.py`, `seq2seq_families.py`), by
their stock class; only safetensors; the configuration is rebuilt from the keys that the stock
class declares, so that no class name, code reference, file name or option outside of them is
ever acted on; every tensor's name and shape is compared with the model's before any weight is
allocated (`tensors.py`); the hub is off.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key
from transformers.utils import logging as transformers_logging

from triparty.cloud.serving import attention, cross_attention
from triparty.cloud.serving.attention import PackedBatch, Span
from triparty.cloud.serving.cache import SessionCache
from triparty.cloud.serving.encoder_families import (
    Head,
    encoder_config,
    encoder_info,
    encoder_of,
)
from triparty.cloud.serving.engine import EncoderInfo
from triparty.cloud.serving.families import (
    FAMILIES,
    FOREIGN,
    config_of,
    experts_implementation,
    family_of,
    one_line,
)
from triparty.cloud.serving.placement import DISK, Placement, devices_of, input_device
from triparty.cloud.serving.seq2seq_families import seq2seq_config, seq2seq_of
from triparty.cloud.serving.tensors import Shape, check_tensors
from triparty.cloud.serving.text import TextRules, is_opaque_tokenizer
from triparty.cloud.serving.visual_families import sight_info, visual_config, visual_of
from triparty.common import opaque
from triparty.common.errors import CheckpointError, FileTypeError, UnsupportedModelError

_log = logging.getLogger(__name__)

LOADING = threading.RLock()
"""Held while transformers makes a model. It replaces methods of its own (`tie_weights`) and
functions of torch meanwhile, in all threads: of two loads at once, the one that ends last
would put back the other's replacements, for good."""

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


def holds_encoder(folder: Path) -> bool:
    """Whether a folder's configuration names an encoder that is served.

    Raises:
        CheckpointError: a configuration that cannot be read.
    """
    raw = _read_json(folder / "config.json", limit_bytes=_CONFIG_LIMIT_BYTES)
    return encoder_of(raw) is not None


def holds_visual(folder: Path) -> bool:
    """Whether a folder's configuration names a decoder that sees, and that is served.

    Raises:
        CheckpointError: a configuration that cannot be read.
    """
    raw = _read_json(folder / "config.json", limit_bytes=_CONFIG_LIMIT_BYTES)
    return visual_of(raw) is not None


def holds_seq2seq(folder: Path) -> bool:
    """Whether a folder's configuration names an encoder with a decoder that is served.

    Raises:
        CheckpointError: a configuration that cannot be read.
    """
    raw = _read_json(folder / "config.json", limit_bytes=_CONFIG_LIMIT_BYTES)
    return seq2seq_of(raw) is not None


def load_model(folder: Path, *, placement: Placement) -> PreTrainedModel:
    """The decoder in a folder, in evaluation mode, with packed attention.

    Args:
        folder: verified files laid out as a Hugging Face checkpoint.
        placement: where the weights go.

    Raises:
        UnsupportedModelError: a family or option that is not served.
        FileTypeError: a file that could hold code.
        CheckpointError: a configuration or weights that do not fit together.
    """
    _check_files(folder)
    raw = _read_json(folder / "config.json", limit_bytes=_CONFIG_LIMIT_BYTES)
    family = family_of(raw)
    found = _shapes(folder)
    config = config_of(raw, family, tensors=len(found))
    placement.retype(config)
    check_tensors(found, _meta_model(config, family.model), family.experts)
    implementations = {
        "attn_implementation": attention.NAME,
        "experts_implementation": experts_implementation(config, family.experts),
    }
    model = _stock(folder, family.model, config, placement=placement, options=implementations)
    _try_out(model)
    return model


def load_encoder(
    folder: Path, *, placement: Placement
) -> tuple[PreTrainedModel, Head, EncoderInfo]:
    """The encoder in a folder, in evaluation mode, with what it takes and answers.

    Args and errors as for `load_model`.
    """
    _check_files(folder)
    raw = _read_json(folder / "config.json", limit_bytes=_CONFIG_LIMIT_BYTES)
    family = encoder_of(raw)
    if family is None:
        raise UnsupportedModelError(f"model_type {raw.get('model_type')!r} is no encoder")
    head, found = family.head_of(raw), _shapes(folder)
    config = encoder_config(raw, family, head, tensors=len(found))
    placement.retype(config)
    takes_ids = family.text and takes_words(folder, vocabulary=_vocabulary(config))
    info = encoder_info(config, family, head, takes_ids=takes_ids)
    meta = _meta_model(config, head.model)
    check_tensors(_renamed(found, meta), meta, None)
    return _stock(folder, head.model, config, placement=placement), head, info


def load_visual(
    folder: Path, *, placement: Placement
) -> tuple[PreTrainedModel, PreTrainedModel, EncoderInfo]:
    """The decoder that sees in a folder, in evaluation mode.

    Args and errors as for `load_model`.

    Returns:
        Its decoder by itself, as `load_model` would load it; the whole; and what serving must
        know of the part that makes rows of images. Both models share their weights.
    """
    _check_files(folder)
    raw = _read_json(folder / "config.json", limit_bytes=_CONFIG_LIMIT_BYTES)
    family = visual_of(raw)
    if family is None:
        raise UnsupportedModelError(f"model_type {raw.get('model_type')!r} takes no images")
    found = _shapes(folder)
    config = visual_config(raw, family, tensors=len(found))
    placement.retype(config)
    info = sight_info(config)
    meta = _meta_model(config, family.model)
    check_tensors(_renamed(found, meta), meta, None)
    options = {"attn_implementation": {"text_config": attention.NAME}}
    whole: Any = _stock(folder, family.model, config, placement=placement, options=options)
    decoder: Any = _meta_model(whole.config.text_config, FAMILIES[family.text].model)
    decoder.model, decoder.lm_head = whole.model.language_model, whole.lm_head
    decoder.eval()
    decoder.hf_device_map = getattr(whole, "hf_device_map", {"": whole.device})
    _try_out(decoder)
    return decoder, whole, info


def load_seq2seq(folder: Path, *, placement: Placement) -> PreTrainedModel:
    """The encoder with a decoder in a folder, in evaluation mode; packed in the decoder.

    Args and errors as for `load_model`.
    """
    _check_files(folder)
    raw = _read_json(folder / "config.json", limit_bytes=_CONFIG_LIMIT_BYTES)
    family = seq2seq_of(raw)
    if family is None:
        raise UnsupportedModelError(f"model_type {raw.get('model_type')!r} has no encoder")
    found = _shapes(folder)
    config = seq2seq_config(raw, family, tensors=len(found))
    placement.retype(config)
    check_tensors(found, _meta_model(config, family.model), None)
    model: Any = _stock(folder, family.model, config, placement=placement)
    model.decoder.config._attn_implementation = cross_attention.NAME
    return model  # type: ignore[no-any-return]


def _vocabulary(config: PreTrainedConfig) -> int:
    size: int = getattr(config, "text_config", config).vocab_size
    return size


def _stock(
    folder: Path,
    kind: type[PreTrainedModel],
    config: PreTrainedConfig,
    *,
    placement: Placement,
    options: Mapping[str, Any] | None = None,
) -> PreTrainedModel:
    """A folder's weights in a stock class, in evaluation mode, where they belong."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # For weights that stay in files, but do not lie there as the stock class has them: experts.
    changed = tempfile.mkdtemp(prefix="triparty-weights-")
    try:
        with LOADING:
            model: PreTrainedModel = kind.from_pretrained(
                folder,
                config=config,
                dtype=config.dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                offload_folder=changed,
                **placement.options(),
                **(options or {}),
            )
    except (*FOREIGN, OSError, SafetensorError) as error:
        shutil.rmtree(changed)
        raise CheckpointError(f"the checkpoint cannot be loaded: {one_line(error)}") from error
    if DISK in devices_of(model):
        _log.warning("a model has no room in memory: part of it is read at every pass")
        weakref.finalize(model, shutil.rmtree, changed, ignore_errors=True)
    else:
        shutil.rmtree(changed)
    model.requires_grad_(False)
    return model  # in evaluation mode: `from_pretrained` leaves it so


def _renamed(found: Mapping[str, Shape], model: PreTrainedModel) -> dict[str, Shape]:
    """The names by which the stock class loads what older versions of it have saved.

    Raises:
        CheckpointError: two tensors with one name.
    """
    steps = get_model_conversion_mapping(model)
    renamings = [step for step in steps if isinstance(step, WeightRenaming)]
    renamed: dict[str, Shape] = {}
    for name, shape in found.items():
        now, _ = rename_source_key(name, renamings, [])
        if now in renamed:
            raise CheckpointError(f"the checkpoint has {now} twice, as {name} too")
        renamed[now] = shape
    return renamed


def load_text_rules(folder: Path, *, vocabulary: int) -> TextRules | None:
    """How a model generates from ids; None unless its folder has the opaque tokenizer.

    Args:
        folder: as for `load_model`.
        vocabulary: V, of its configuration.

    Raises:
        CheckpointError: rules that cannot be read.
    """
    if not takes_words(folder, vocabulary=vocabulary):
        return None
    name = "generation_config.json"
    path = folder / (name if (folder / name).is_file() else "config.json")
    generation = _read_json(path, limit_bytes=_CONFIG_LIMIT_BYTES)
    return TextRules.of(generation, vocabulary=vocabulary)


def takes_words(folder: Path, *, vocabulary: int) -> bool:
    """Whether a folder has the opaque tokenizer of V words, so that its embedding is real."""
    tokenizer = folder / opaque.TOKENIZER_FILE
    if not tokenizer.is_file() or tokenizer.stat().st_size > _TOKENIZER_LIMIT_BYTES:
        return False
    return is_opaque_tokenizer(tokenizer.read_bytes(), vocabulary=vocabulary)


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
        raise CheckpointError(f"{path.name} cannot be read: {one_line(error)}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path.name} is not a JSON object")
    return document


def _meta_model(config: PreTrainedConfig, kind: type[PreTrainedModel]) -> PreTrainedModel:
    """The model without its numbers."""
    try:
        with LOADING, torch.device("meta"):
            return kind(config)
    except FOREIGN as error:
        raise CheckpointError(f"config.json is not valid: {one_line(error)}") from error


def _try_out(model: PreTrainedModel) -> None:
    """Runs one row, so that a model that cannot run fails here and not in every batch."""
    config, device = model.config, input_device(model)
    cache = SessionCache.empty(layers=config.num_hidden_layers, most_rows=1)
    span = Span.of(position=0, rows=1, cache=cache)
    row = torch.zeros(1, 1, config.hidden_size, device=device, dtype=model.dtype)
    try:
        with torch.inference_mode():
            model.base_model(
                inputs_embeds=row,
                position_ids=torch.zeros(1, 1, dtype=torch.long, device=device),
                use_cache=False,
                packed=PackedBatch([span]),
            )
    except FOREIGN as error:
        raise CheckpointError(f"the model does not run: {one_line(error)}") from error


def _shapes(folder: Path) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - a safe_open is no mapping
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path.name}: {one_line(error)}") from error
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
