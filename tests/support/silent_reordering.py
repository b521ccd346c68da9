"""H.264 that does not say how far it reorders, as some cameras' streams do not."""

from __future__ import annotations

from dataclasses import replace

from gated_decoding import Stream


class _Bits:
    """Reads bits and exp-Golomb numbers."""

    def __init__(self, data: bytes) -> None:
        self.text = "".join(f"{byte:08b}" for byte in data)
        self.position = 0

    def take(self, count: int) -> int:
        self.position += count
        return int(self.text[self.position - count : self.position] or "0", 2)

    def golomb(self) -> int:
        zeros = self.text.index("1", self.position) - self.position
        self.position += zeros + 1
        return (1 << zeros) - 1 + self.take(zeros)


def without_usability(stream: Stream) -> Stream:
    """The stream (avcC, one sequence set, frames only) without usability information."""
    extradata = stream.extradata
    assert extradata is not None
    end = 8 + int.from_bytes(extradata[6:8], "big")
    changed = _without(extradata[8:end])
    head = extradata[:6] + len(changed).to_bytes(2, "big")
    return replace(stream, extradata=head + changed + extradata[end:])


def _without(unit: bytes) -> bytes:
    """A sequence parameter set, ITU-T H.264 7.3.2.1.1, cut before its last optional part."""
    bits = _Bits(unit[1:].replace(b"\0\0\3", b"\0\0"))
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    if profile == 100:
        for _ in range(3):
            bits.golomb()
        bits.take(2)
    bits.golomb()
    if bits.golomb() == 0:
        bits.golomb()
    bits.golomb()
    bits.take(1)
    bits.golomb()
    bits.golomb()
    assert bits.take(1) == 1
    bits.take(1)
    if bits.take(1):
        for _ in range(4):
            bits.golomb()
    assert bits.text[bits.position] == "1"
    text = bits.text[: bits.position] + "01"
    text += "0" * (-len(text) % 8)
    body = bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))
    for third in range(4):
        body = body.replace(bytes([0, 0, third]), bytes([0, 0, 3, third]))
    return unit[:1] + body
