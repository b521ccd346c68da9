"""`encoding.json`: how a device feeds an encoder, and what it makes of the answers.

The developer writes it from what the checkpoint says of itself, the device reads it; like
`device.json` it is parsed strictly. A bundle without the file means the defaults, which are
also what sentence-transformers does with a checkpoint that says nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from triparty.common.errors import CheckpointError


class Pooling(StrEnum):
    """How the rows of a sentence become its vector."""

    MEAN = "mean"
    CLS = "cls"
    MAX = "max"
    MEAN_SQRT_LEN = "mean_sqrt_len_tokens"


class Scores(StrEnum):
    """How the logits of labels become scores: of one label, of any of them, or as they are."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"


@dataclass(frozen=True)
class EncodingInfo:
    """What `encoding.json` says.

    Attributes:
        max_tokens: longest text, in tokens, that the model was made for; None: as many as it
            has positions.
        lowercase: whether texts are lowercased before they become tokens.
        prompt: what is put before each text; its tokens count among the text's.
        pooling: how the rows of a sentence become its vector.
        normalise: whether that vector is divided by its length.
        scores: how the logits of labels become scores.
    """

    max_tokens: int | None = None
    lowercase: bool = False
    prompt: str = ""
    pooling: Pooling = Pooling.MEAN
    normalise: bool = False
    scores: Scores = Scores.SOFTMAX

    def to_json(self) -> bytes:
        """The bytes of `encoding.json`; `from_json(to_json(info)) == info`."""
        return json.dumps(asdict(self), indent=2, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> EncodingInfo:
        """Reads `encoding.json`.

        Raises:
            CheckpointError: not such a document.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise CheckpointError("encoding.json is not JSON") from error
        if not isinstance(document, dict) or set(document) != set(_MEMBERS):
            raise CheckpointError(f"encoding.json has exactly {', '.join(_MEMBERS)}")
        for name, kinds in _MEMBERS.items():
            if type(document[name]) not in kinds:
                raise CheckpointError(f"encoding.json: {name!r} has the wrong type")
        return cls(**_read(document))


_MEMBERS: dict[str, tuple[type, ...]] = {
    "max_tokens": (int, type(None)),
    "lowercase": (bool,),
    "prompt": (str,),
    "pooling": (str,),
    "normalise": (bool,),
    "scores": (str,),
}


def _read(document: dict[str, Any]) -> dict[str, Any]:
    most = document["max_tokens"]
    if most is not None and most < 1:
        raise CheckpointError(f"encoding.json: 'max_tokens' is positive or null, got {most}")
    try:
        kinds = {
            "pooling": Pooling(document["pooling"]),
            "scores": Scores(document["scores"]),
        }
    except ValueError as error:
        raise CheckpointError(
            f"encoding.json: pooling is one of {', '.join(Pooling)}, scores one of "
            f"{', '.join(Scores)}: {error}"
        ) from error
    return document | kinds
