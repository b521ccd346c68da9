"""The brightness of a frame in the size that a filter takes."""

from __future__ import annotations

import av
import numpy as np

from triparty.device.gateway.frames import Pixels


def averaged(luma: Pixels, height: int, width: int) -> Pixels:
    """A luma plane in another size: each pixel the mean of the area that it stands for.

    A plane whose rows lie apart is not copied.

    Args:
        luma: (H, W) uint8.
        height: of the result, in pixels.
        width: of the result.

    Returns:
        (height, width) uint8.
    """
    if luma.shape == (height, width):
        return luma
    image = av.VideoFrame.from_numpy_buffer(luma, format="gray")
    small = image.reformat(width, height, "gray", interpolation="AREA")
    return np.asarray(small.to_ndarray(), np.uint8)
