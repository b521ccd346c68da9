"""What the typer reads before decode is what the decoder finds, for every frame."""

from __future__ import annotations

from pathlib import Path

import pytest
from typed_streams import compressed, read
from video_encodings import ENCODINGS, Encoding, Encodings

from triparty.device.streams.packets import Entry, PictureType
from triparty.device.streams.typer import HEADERS, Typer

CLIPS = ("bottle-detection", "car-detection", "one-by-one-person-detection")


@pytest.mark.parametrize("clip", CLIPS)
def test_clips_are_typed_as_the_decoder_does(clips: Path, clip: str) -> None:
    reading = read(compressed(clips / f"{clip}.mp4"))
    assert len(reading.letters) > 300
    assert reading.mismatches == 0
    assert reading.ungateable is None


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda one: one.name)
def test_encodings_are_typed_as_the_decoder_does(
    encoding: Encoding, encodings: Encodings
) -> None:
    reading = read(compressed(encodings.path(encoding.name)))
    assert len(reading.letters) == encoding.frames
    assert reading.mismatches == 0
    assert (reading.ungateable is not None) is encoding.ungateable


def test_every_codec_is_tried() -> None:
    assert {one.codec for one in ENCODINGS} == HEADERS.keys()


def test_the_key_flag_is_not_believed(encodings: Encodings) -> None:
    """Containers flag P pictures of intra refresh, and I pictures with leading ones."""
    flagged = [one.is_keyframe for one in encodings.packets("h264-intra-refresh")]
    refreshing = compressed(encodings.path("h264-intra-refresh")).typed()
    assert sum(flagged) > 1
    assert [one.entry for one in refreshing].count(Entry.NONE) == len(refreshing) - 1
    for name in ("h264-open-gop", "h265-open"):
        pictures = compressed(encodings.path(name)).typed()
        keys = [n for n, one in enumerate(encodings.packets(name)) if one.is_keyframe]
        entries = [n for n, one in enumerate(pictures) if one.entry]
        assert keys == entries
        assert {pictures[n].entry for n in entries[1:]} == {Entry.OPEN}
        assert pictures[0].entry is Entry.CLEAN


def test_the_letter_does_not_say_who_is_needed(encodings: Encodings) -> None:
    for name in ("h264-b-pyramid", "h265-closed"):
        pictures = compressed(encodings.path(name)).typed()
        needed = {one.reference for one in pictures if one.type is PictureType.B}
        assert needed == {True, False}


def test_an_unknown_codec_is_decoded_whole() -> None:
    typer = Typer.of("theora", None)
    assert typer.ungateable is not None
    assert "theora" in typer.ungateable
    assert typer.read(b"", keyframe=True).entry is Entry.CLEAN
    later = typer.read(b"", keyframe=False)
    assert later.reference
    assert later.type is PictureType.P
