"""The example of docs/filters.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PAGE = Path(__file__).resolve().parents[3] / "docs" / "filters.md"


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    exec(compile(found[1], str(PAGE), "exec"), {"__name__": "example"})
    told = capsys.readouterr().out
    assert "OtherClass" in told
    assert "filter_rate" in told
    assert (tmp_path / "standing" / "filter.json").is_file()
