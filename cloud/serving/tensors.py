"""Whether a checkpoint's tensors are the model's: all of them, no others, each of its shape.

Asked before any weight is allocated: names and shapes are in the files' headers, and the
model stands on torch's meta device. transformers stacks a layer's experts while it loads, so
there a checkpoint has many tensors where the model has one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel

from triparty.cloud.serving.families import Experts
from triparty.common.errors import CheckpointError

Shape = tuple[int, ...]

# The device embeds, so that a hosted model need not have its embedding.
_INPUT_EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight", "shared.weight")
_EXPERT = re.compile(
    r"(?P<stem>.+\.experts)\.(?P<number>0|[1-9][0-9]{0,6})\.(?P<part>\w+)\.weight"
)


@dataclass(frozen=True)
class _Place:
    """Where a checkpoint's tensor goes.

    Attributes:
        target: the model's tensor.
        piece: which piece of it, part and expert, or None for all of it.
        shape: what the tensor must have.
    """

    target: str
    piece: tuple[str, int] | None
    shape: Shape


def check_tensors(
    found: Mapping[str, Shape], model: PreTrainedModel, experts: Experts | None
) -> None:
    """Compares the tensors of a checkpoint with a model's.

    Args:
        found: names and shapes in the files.
        model: on the meta device.
        experts: how the checkpoint writes experts, if the family has any.

    Raises:
        CheckpointError: a tensor that is missing, unknown, there twice, or of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    filled: defaultdict[str, set[tuple[str, int] | None]] = defaultdict(set)
    for name, shape in found.items():
        place = _place(name, wanted, model.base_model_prefix, experts)
        if place is None:
            if _is_ignored(name, model):
                continue
            raise CheckpointError(f"the checkpoint has a tensor {name} that the model has not")
        if shape != place.shape:
            raise CheckpointError(f"tensor {name} has shape {shape}, expected {place.shape}")
        pieces = filled[place.target]
        if place.piece in pieces or (pieces and None in (place.piece, *pieces)):
            raise CheckpointError(f"the checkpoint has {place.target} twice, as {name} too")
        pieces.add(place.piece)
    for name, shape in wanted.items():
        if name not in filled:
            _check_may_miss(name, filled, model)
        elif None not in filled[name] and len(filled[name]) != _pieces(name, shape):
            raise CheckpointError(
                f"{name} has {_pieces(name, shape)} tensors of experts, "
                f"the checkpoint has {len(filled[name])}"
            )


def _place(
    name: str, wanted: Mapping[str, Shape], prefix: str, experts: Experts | None
) -> _Place | None:
    """Where a tensor goes; names may lack the prefix of the model without its head."""
    if experts is not None:
        name = name.replace(f".{experts.block}.", ".mlp.")
    for full in (name, f"{prefix}.{name}"):
        if full in wanted:
            return _Place(full, None, wanted[full])
        place = None if experts is None else _expert_place(full, wanted, experts)
        if place is not None:
            return place
    return None


def _expert_place(name: str, wanted: Mapping[str, Shape], experts: Experts) -> _Place | None:
    """Where a tensor of one expert goes."""
    match = _EXPERT.fullmatch(name)
    if match is None or match["part"] not in (experts.gate, experts.up, experts.down):
        return None
    part, number = match["part"], int(match["number"])
    is_down = part == experts.down
    target = f"{match['stem']}.{'down_proj' if is_down else 'gate_up_proj'}"
    if target not in wanted:
        return None
    count, rows, columns = wanted[target]
    shape = (rows if is_down else rows // 2, columns)
    return _Place(target, (part, number), shape) if number < count else None


def _pieces(target: str, shape: Shape) -> int:
    """How many tensors of a checkpoint make a stacked one."""
    return shape[0] * (2 if target.endswith(".gate_up_proj") else 1)


def _check_may_miss(name: str, filled: Mapping[str, object], model: PreTrainedModel) -> None:
    """A tied tensor needs its partner; the input embedding is needed by nothing else."""
    tied = model.all_tied_weights_keys
    partners = [tied[name]] if name in tied else [to for to, of in tied.items() if of == name]
    if name not in _INPUT_EMBEDDINGS and not any(partner in filled for partner in partners):
        raise CheckpointError(f"the checkpoint has no tensor {name}")


def _is_ignored(name: str, model: PreTrainedModel) -> bool:
    """Whether the stock class leaves a tensor unread: tables of old versions, extra heads."""
    patterns = model._keys_to_ignore_on_load_unexpected or ()
    return any(re.search(pattern, name) for pattern in patterns)
