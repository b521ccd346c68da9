"""An image in a text: where it stands, and the rows that are there.

The cloud makes keyed rows of keyed pixels, and the device sends them in its session in the
place of the tokens that stand for the image. A session that is lost is replayed with the same
rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import EMBEDDINGS, DeviceInfo, ImageInfo
from triparty.common.errors import RequestError
from triparty.common.keying import KeyedRows
from triparty.common.wire import Frame

VISUAL_TASK = "image-text-to-text"


@dataclass(frozen=True, eq=False)
class Picture:
    """The rows of an image in a conversation.

    Attributes:
        rows: (N, D), keyed like the text's.
        first: position of the first one.
    """

    rows: NDArray[np.float32]
    first: int

    def put_into(self, rows: KeyedRows, *, start: int) -> KeyedRows:
        """Keyed rows of a text, the image's in the place of those that stand for it.

        Args:
            rows: (T, D) of token ids.
            start: position of the first one.
        """
        places = np.arange(start, start + len(rows.array)) - self.first
        inside = (places >= 0) & (places < len(self.rows))
        if not inside.any():
            return rows
        values = rows.as_float32()
        values[inside] = self.rows[places[inside]]
        return KeyedRows(Frame.rounded(values, rows.dtype))


def image_of(info: DeviceInfo, model: str) -> tuple[ImageInfo, int]:
    """The images that a model takes in its texts, and the token that stands for them.

    Raises:
        RequestError: it takes none, or with keyed ids, beside which no rows can go.
    """
    image = info.image
    if info.task != VISUAL_TASK or image is None or image.token_id is None:
        raise RequestError(f"'{model}' takes no images in its texts: its task is {info.task}")
    if info.interface != EMBEDDINGS:
        raise RequestError(
            f"'{model}' is of the interface '{info.interface}', which sends ids and no rows of "
            f"images: its developer has to protect it with --interface {EMBEDDINGS}"
        )
    return image, image.token_id


def check_no_image(ids: Sequence[int], info: DeviceInfo) -> None:
    """Refuses a text with a place for an image that nobody gave.

    Raises:
        RequestError: it has one.
    """
    if info.image is not None and info.image.token_id in ids:
        raise RequestError(
            "the prompt has a place for an image, and none is given: use 'describe', or leave "
            "the place out"
        )


def with_place(
    ids: Sequence[int], image: ImageInfo, token: int, *, bos_id: int | None
) -> tuple[list[int], int]:
    """A text with as many tokens as an image takes, and the position of their first.

    Args:
        ids: of the text; one token, or as many as the image takes side by side, say where it
            stands. In a text without any it comes first, behind the begin-of-text token.
        image: the images that the model takes.
        token: stands for them.
        bos_id: begin-of-text token, if the model has one.

    Raises:
        RequestError: places for several images, or a part of one.
    """
    places = [at for at, one in enumerate(ids) if one == token]
    if not places:
        first = 1 if ids and ids[0] == bos_id else 0
        places, after = [first], first
    else:
        first, after = places[0], places[-1] + 1
    is_one = places == list(range(first, first + len(places)))
    if not is_one or len(places) not in (1, image.tokens):
        raise RequestError(
            f"the prompt has places for more than one image, or for a part of one: expected "
            f"one image token, or {image.tokens} side by side, got {len(places)}"
        )
    return [*ids[:first], *[token] * image.tokens, *ids[after:]], first
