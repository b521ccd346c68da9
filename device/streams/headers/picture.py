"""Pictures made once: a stream says the same few things over and over."""

from __future__ import annotations

from functools import lru_cache

from triparty.device.streams.packets import Picture

KEPT = 1 << 15

# Making a frozen record costs more than reading the header it describes.
picture = lru_cache(maxsize=KEPT)(Picture)
