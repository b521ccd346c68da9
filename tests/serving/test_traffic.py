"""The trace file: never truncated, never through a link."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from triparty.cloud.serving.traffic import Trace
from triparty.common.errors import SettingsError
from triparty.common.wire import decode_frames


def test_records_follow_one_another(tmp_path: Path) -> None:
    for value in (1, 2):
        trace = Trace(tmp_path / "rows")
        trace.record(np.full((1, 3), value, np.float32))
        trace.close()
        trace.record(np.zeros((1, 3), np.float32))  # after closing: nothing
    frames = decode_frames((tmp_path / "rows").read_bytes(), limit_bytes=1000)
    assert [frame.array.tolist() for frame in frames] == [[[1, 1, 1]], [[2, 2, 2]]]


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="trace"):
        Trace(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
