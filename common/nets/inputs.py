"""What goes into a filter: its modality, told from the shape and type of the data.

One input at a time, without the batch:

| shape | type | modality |
|---|---|---|
| | text | `text`, hashed into numbers (`words.py`) |
| (T,) | integers | `text`: numbers of tokens, 0 is padding |
| (T,) | fractions, T >= 4000 | `audio`: a waveform |
| (T,) | fractions | `vector` |
| (F, T) | uint8 | `audio`: a spectrogram |
| (T, C) | fractions | `series`: C signals over time |
| (H, W, C) or (C, H, W), C of 1, 3, 4 | any | `image` |
| other three dimensions | fractions | `vector`: a feature map |
| (F, H, W, C) or (F, C, H, W) | any | `video`: F frames |

A name of a modality overrides the table: a matrix of a `series` can go through the published
`vector` network, flattened.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from triparty.common.documents import check_name
from triparty.common.errors import DatasetError, SettingsError

Modality = Literal["text", "image", "video", "audio", "vector", "series"]
MODALITIES: Final[tuple[str, ...]] = get_args(Modality)
CHANNELS: Final = (1, 3, 4)
SHORTEST_WAVEFORM: Final = 4000
MOST_ELEMENTS: Final = 1 << 24
_DIMENSIONS: Final = {
    "text": (1,),
    "image": (3,),
    "video": (4,),
    "audio": (1, 2),
    "vector": (1, 2, 3, 4),
    "series": (2,),
}


@dataclass(frozen=True)
class InputSpec:
    """One modality of a filter.

    Attributes:
        name: what the input is called.
        modality: which feature network it goes through.
        shape: of one input, without the batch.
        vocabulary: how many tokens there are, for text; else 0.
    """

    name: str
    modality: Modality
    shape: tuple[int, ...]
    vocabulary: int = 0

    def __post_init__(self) -> None:
        """Refuses what no network takes.

        Raises:
            ManifestError: not a name.
            SettingsError: an unknown modality, or a shape that is not of it.
        """
        check_name(self.name, what="input")
        if self.modality not in MODALITIES:
            raise SettingsError(
                f"modality {self.modality!r:.40}: expected one of {', '.join(MODALITIES)}"
            )
        fits = len(self.shape) in _DIMENSIONS[self.modality] and min(self.shape) >= 1
        if self.modality in ("image", "video"):
            fits = fits and (self.shape[-1] in CHANNELS or self.shape[-3] in CHANNELS)
        if not fits or prod(self.shape) > MOST_ELEMENTS:
            raise SettingsError(
                f"input '{self.name}' has shape {self.shape}: no input of '{self.modality}' "
                f"with at most {MOST_ELEMENTS} numbers"
            )
        if (self.modality == "text") != (self.vocabulary > 0):
            raise SettingsError(f"input '{self.name}': text alone has a vocabulary")

    @property
    def has_channels_last(self) -> bool:
        """Whether colours are the last axis of an image, not the one before its rows."""
        return self.shape[-1] in CHANNELS

    @property
    def dtype(self) -> np.dtype[Any]:
        """What a network takes: int64 numbers of tokens, or float32."""
        return np.dtype(np.int64 if self.modality == "text" else np.float32)


def detect(
    values: NDArray[Any], *, name: str = "input", modality: Modality | None = None
) -> InputSpec:
    """The modality of data.

    Args:
        values: (n, ...) numbers; the first axis are inputs.
        name: what to call the input.
        modality: what it is, against the table.

    Raises:
        DatasetError: a shape or type that is in no row of the table.
        SettingsError: a shape that is not of the modality that was named.
    """
    shape = values.shape[1:]
    kind = modality or _modality(shape, values.dtype)
    if kind is None:
        raise DatasetError(
            f"'{name}' has inputs of shape {shape} and type {values.dtype}: no known modality; "
            f"name one of {', '.join(MODALITIES)}"
        )
    vocabulary = int(values.max(initial=0)) + 1 if kind == "text" else 0
    return InputSpec(name, kind, shape, vocabulary)


def _modality(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Modality | None:
    is_fraction = np.issubdtype(dtype, np.floating)
    is_integer = np.issubdtype(dtype, np.integer)
    if len(shape) == 1 and is_integer:
        return "text"
    if len(shape) == 1 and is_fraction:
        return "audio" if shape[0] >= SHORTEST_WAVEFORM else "vector"
    if len(shape) == 2 and is_integer:
        return "audio"
    if len(shape) == 2 and is_fraction:
        return "series"
    is_picture = len(shape) in (3, 4) and (shape[-1] in CHANNELS or shape[-3] in CHANNELS)
    if is_picture and (is_integer or is_fraction):
        return "image" if len(shape) == 3 else "video"
    return "vector" if len(shape) == 3 and is_fraction else None
