"""The test encodings are what their names say, and the same each time they are made."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from video_encodings import BY_NAME, ENCODINGS, Encoding, Encodings


def _letters(path: Path) -> str:
    """Picture types in presentation order, as the decoder tells them."""
    with av.open(path) as container:
        return "".join("?IPB"[int(frame.pict_type)] for frame in container.decode(video=0))


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda one: one.name)
def test_one_packet_and_one_frame_a_picture(encoding: Encoding, encodings: Encodings) -> None:
    packets = list(encodings.packets(encoding.name))
    letters = _letters(encodings.path(encoding.name))
    assert len(packets) == len(letters) == encoding.frames
    assert packets[0].is_keyframe


@pytest.mark.parametrize("name", ["h264-main-b", "h264-open-gop", "h265-open", "mpeg4-b"])
def test_b_pictures_are_there(name: str, encodings: Encodings) -> None:
    assert _letters(encodings.path(name)).count("B") > BY_NAME[name].frames / 3


@pytest.mark.parametrize("name", ["h264-cbr-25", "h264-cbr-50"])
def test_groups_have_their_length(name: str, encodings: Encodings) -> None:
    keys = [n for n, packet in enumerate(encodings.packets(name)) if packet.is_keyframe]
    gop = int(name.rpartition("-")[2])
    assert keys == list(range(0, BY_NAME[name].frames, gop))


def test_intra_refresh_flags_pictures_that_are_not_intra(encodings: Encodings) -> None:
    path = encodings.path("h264-intra-refresh")
    packets = list(encodings.packets("h264-intra-refresh"))
    assert sum(packet.is_keyframe for packet in packets) > 1
    assert _letters(path).count("I") == 1


def test_same_bytes_each_time(clips: Path, encodings: Encodings, tmp_path: Path) -> None:
    again = Encodings(clips, tmp_path)
    for name in ("h264-b-pyramid", "h265-open", "vp9-altref", "av1", "mpeg4-b"):
        assert encodings.path(name).read_bytes() == again.path(name).read_bytes(), name
