"""Headers written bit by bit, for what no encoder at hand writes."""

from __future__ import annotations


class Written:
    """Bits, most significant first; every method returns the writer."""

    def __init__(self) -> None:
        self._bits = ""

    def u(self, count: int, number: int) -> Written:
        """An unsigned number of some bits."""
        self._bits += format(int(number), f"0{int(count)}b") if count else ""
        return self

    def ue(self, *numbers: int) -> Written:
        """Unsigned Exp-Golomb numbers."""
        for number in numbers:
            code = format(number + 1, "b")
            self._bits += "0" * (len(code) - 1) + code
        return self

    def se(self, *numbers: int) -> Written:
        """Signed Exp-Golomb numbers."""
        return self.ue(*(2 * one - 1 if one > 0 else -2 * one for one in numbers))

    def bytes(self, prefix: bytes = b"", padding: int = 16) -> bytes:
        """The bits as bytes after a prefix, with some more bytes of ones."""
        bits = self._bits + "1" + "0" * (-(len(self._bits) + 1) % 8)
        return prefix + int(bits, 2).to_bytes(len(bits) // 8, "big") + b"\xff" * padding
