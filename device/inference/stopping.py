"""Texts at which an answer ends, while it still comes in pieces.

A stop text may lie across any number of tokens, so what could be its beginning is held back
until it is clear that it is not.

Law: however a text is cut into pieces, what is shown in all is the text before the stop that
is complete first; all of it if there is none.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopTexts:
    """Passes a text on piece by piece, up to the first stop.

    Args:
        stops: none of them empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Nothing was passed on yet."""
        self._stops = tuple(stops)
        self._held = ""
        self.is_found = False

    @property
    def holds(self) -> bool:
        """Whether some text waits for what follows it."""
        return bool(self._held)

    def after(self, piece: str) -> str:
        """What can be shown when this piece has come; after a stop, nothing."""
        if self.is_found:
            return ""
        text = self._held + piece
        places = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if places:
            self.is_found, self._held = True, ""
            return text[: min(places)[1]]
        keep = max((_beginning(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back, when nothing follows."""
        rest, self._held = self._held, ""
        return rest


def _beginning(text: str, stop: str) -> int:
    """How many characters at the end of a text may begin a stop."""
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)
