"""What somebody types: lines that make one message together.

A message is one line; or several, as long as each ends with a backslash; or everything between
two lines of three quotes (which may have text behind the first and before the last).
"""

from __future__ import annotations

QUOTES = '"""'
BACKSLASH = "\\"


class Message:
    """A message that is being typed."""

    def __init__(self) -> None:
        """Nothing is typed yet."""
        self._lines: list[str] = []
        self._is_quoted = False

    @property
    def is_begun(self) -> bool:
        """Whether further lines belong to it."""
        return self._is_quoted or bool(self._lines)

    def add(self, line: str) -> str | None:
        """Takes a line; the whole message if that was its last one, else None."""
        if not self.is_begun and line.lstrip().startswith(QUOTES):
            self._is_quoted, line = True, line.lstrip().removeprefix(QUOTES)
            if not line:
                return None
        if self._is_quoted:
            is_last = line.rstrip().endswith(QUOTES)
            text = line.rstrip().removesuffix(QUOTES) if is_last else line
            if text or not is_last:
                self._lines.append(text)
        else:
            is_last = not line.endswith(BACKSLASH)
            self._lines.append(line if is_last else line.removesuffix(BACKSLASH))
        return self.whole() if is_last else None

    def whole(self) -> str:
        """What was typed so far; the next line begins anew."""
        text = "\n".join(self._lines)
        self._lines, self._is_quoted = [], False
        return text
