"""`triparty developer links`: from recorded outputs to links, and what they are worth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from linked_outputs import linked
from typer.testing import CliRunner

from triparty.common.errors import SettingsError
from triparty.common.links.folder import open_links
from triparty.common.links.recorded import Recorded, check_recorded
from triparty.developer.cli_links import app
from triparty.developer.links.judging import judge, open_all

pytest.importorskip("torch")


def recorded(folder: Path, rows: slice) -> Path:
    """A class, its tags, and noise that says nothing of either."""
    whole = linked(200).models(["class", "tags", "size"])
    noise = np.random.default_rng(3).normal(size=(200, 2)).astype(np.float32)
    made = check_recorded(whole.specs, {**whole.outputs, "size": noise})
    made.part(np.arange(200)[rows]).save(folder)
    return folder


def run(*arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_links_are_trained_and_judged(tmp_path: Path) -> None:
    seen = recorded(tmp_path / "seen", slice(0, 60))
    other = recorded(tmp_path / "other", slice(60, 200))
    out = str(tmp_path / "links")
    made = run("train", str(seen), "-o", out, "--target", "tags", "--target", "size",
               "--sources", "1", "--epochs", "40")  # fmt: skip
    pairs = {(one["source"], one["target"]): one for one in made["pairs"]}  # type: ignore[attr-defined]
    assert [pair for pair in pairs if pair[1] == "tags"] == [("class", "tags")]
    assert pairs["class", "tags"]["learnt"] is True
    assert sorted(open_all(tmp_path / "links")) == ["size", "tags"]
    assert list(open_links(tmp_path / "links" / "tags").sources) == ["class"]

    found = {one["target"]: one for one in run("evaluate", out, str(other))["targets"]}  # type: ignore[attr-defined]
    assert found["tags"]["together"]["value"] > 0.9
    assert found["tags"]["gain"] > 0.2
    assert found["tags"]["cost_us"] > 0
    assert found["size"]["gain"] < 0.05
    plain = CliRunner().invoke(app, ["evaluate", out, str(other)]).stdout
    assert "worth nothing" in plain or found["size"]["gain"] > 0


def test_what_cannot_be_trained_or_judged_is_told(tmp_path: Path) -> None:
    seen = recorded(tmp_path / "seen", slice(0, 40))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="no links in"):
        open_all(tmp_path / "empty")
    whole = Recorded.open(seen)
    whole.models(["tags"]).save(tmp_path / "one")
    runner = CliRunner()
    alone = runner.invoke(app, ["train", str(tmp_path / "one"), "-o", str(tmp_path / "out")])
    assert isinstance(alone.exception, SettingsError)
    unknown = runner.invoke(
        app, ["train", str(seen), "-o", str(tmp_path / "out"), "--target", "cat"]
    )
    assert "no outputs of 'cat'" in str(unknown.exception)
    run("train", str(seen), "-o", str(tmp_path / "out"), "--target", "tags", "--epochs", "1")
    ensemble = open_all(tmp_path / "out")["tags"]
    with pytest.raises(SettingsError, match="no outputs of"):
        judge(ensemble, whole.models(["tags"]))
