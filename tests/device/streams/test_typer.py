"""What the typer reads before decode is what the decoder finds, for every frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import pytest
from video_encodings import ENCODINGS, Encoding, Encodings

from triparty.device.streams.packets import Entry, Picture, PictureType
from triparty.device.streams.typer import HEADERS, Typer

CLIPS = ("bottle-detection", "car-detection", "one-by-one-person-detection")
READABLE = [one for one in ENCODINGS if one.codec in HEADERS]


@dataclass
class Reading:
    """A file, packet by packet: what the typer says and what the decoder makes of it.

    Attributes:
        pictures: by number of the packet.
        letters: the decoder's own, by number of the packet that its frame came from.
        ungateable: what the typer says at the end.
    """

    pictures: list[Picture]
    letters: dict[int, int]
    ungateable: str | None

    @property
    def mismatches(self) -> int:
        shown = {n: int(one.type) for n, one in enumerate(self.pictures) if one.shown}
        assert shown.keys() == self.letters.keys()
        return sum(shown[number] != letter for number, letter in self.letters.items())


def read(path: Path) -> Reading:
    """Types and decodes a file."""
    pictures, letters = [], {}
    with av.open(path) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context.codec.canonical_name
        typer = Typer.of(codec, stream.codec_context.extradata)
        for packet in container.demux(stream):
            if packet.size:
                packet.pts = packet.dts = len(pictures)  # a raw stream has no stamps
                pictures.append(typer.read(memoryview(packet), packet.is_keyframe))
            letters |= {frame.pts: int(frame.pict_type) for frame in packet.decode()}
    return Reading(pictures, letters, typer.ungateable)


@pytest.mark.parametrize("clip", CLIPS)
def test_clips_are_typed_as_the_decoder_does(clips: Path, clip: str) -> None:
    reading = read(clips / f"{clip}.mp4")
    assert len(reading.letters) > 300
    assert reading.mismatches == 0
    assert reading.ungateable is None


@pytest.mark.parametrize("encoding", READABLE, ids=lambda one: one.name)
def test_encodings_are_typed_as_the_decoder_does(
    encoding: Encoding, encodings: Encodings
) -> None:
    reading = read(encodings.path(encoding.name))
    assert len(reading.letters) == encoding.frames
    assert reading.mismatches == 0
    assert (reading.ungateable is not None) is encoding.ungateable


def test_an_unknown_codec_is_decoded_whole() -> None:
    typer = Typer.of("theora", None)
    assert typer.ungateable is not None
    assert "theora" in typer.ungateable
    assert typer.read(b"", keyframe=True).entry is Entry.CLEAN
    later = typer.read(b"", keyframe=False)
    assert later.reference
    assert later.type is PictureType.P
