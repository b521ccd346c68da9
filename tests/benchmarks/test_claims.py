"""What the documents claim about attacks is what the audit recovers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.claim_settings import SETTINGS, Setting
from benchmarks.claim_tables import TABLES
from benchmarks.claim_texts import BLOCKS, rewritten
from benchmarks.claims import TEXTS, TOLERANCE, kept, measured, renewed
from benchmarks.drifting import drifted
from benchmarks.harness import BenchError
from benchmarks.mitigations import KNOWN, ROWS, grid
from triparty.developer.audit import ATTACKS

FILE = "model.safetensors"
RENEW = "run: python -m benchmarks.claims"
CASES = [(setting, scheme) for setting in SETTINGS for scheme in setting.schemes]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_the_texts_say_what_the_figures_are(path: Any) -> None:
    text = path.read_text(encoding="utf-8")
    assert "<!-- figures: " in text
    assert text == rewritten(text, kept()), RENEW


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_a_figure_that_changes_changes_the_texts(path: Any) -> None:
    figures = copy.deepcopy(kept())
    for model in figures["models"]:
        for found in model["attacks"].values():
            found["recovered"] = 0.123
    text = path.read_text(encoding="utf-8")
    assert rewritten(text, figures) != text
    assert "12.3 %" in rewritten(text, figures)


def changed(figures: Any) -> Any:
    """The same with every number another one."""
    if isinstance(figures, dict):
        return {name: changed(value) for name, value in figures.items()}
    if isinstance(figures, list):
        return [changed(value) for value in figures]
    is_number = isinstance(figures, int | float) and not isinstance(figures, bool)
    return figures + 1 if is_number else figures


@pytest.mark.parametrize("name", sorted(set(BLOCKS) - {"attacks", "levels"}))
def test_every_other_table_follows_its_figures(name: str) -> None:
    figures = kept()
    other = {**figures, "tables": changed(figures["tables"])}
    other["search"] = changed(figures["search"])
    assert BLOCKS[name](figures) != BLOCKS[name](other)


def test_every_table_was_measured() -> None:
    assert set(kept()["tables"]) == set(TABLES), RENEW
    found = kept()["search"]
    rows = [count for count in ROWS if count <= found["effort"]["most"]]
    assert {line["name"] for line in found["tried"]} == {one.name for one in grid(rows)}
    assert {line["known"] for line in found["tried"]} == set(KNOWN)


def test_drift_is_noise_of_its_share_and_repeats(stories_model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    read = [
        load_file(drifted(stories_model, tmp_path / str(n), share, seed=seed) / FILE)
        for n, (share, seed) in enumerate([(0.1, 1), (0.1, 1), (0.1, 2), (0.0, 1)])
    ]
    plain = load_file(stories_model / FILE)
    for name, values in plain.items():
        off = np.sqrt(np.square(read[0][name] - values).mean() / np.square(values).mean())
        assert 0.05 < off < 0.15, name
        np.testing.assert_array_equal(read[0][name], read[1][name])
        np.testing.assert_array_equal(read[3][name], values)
    assert any((read[0][name] != read[2][name]).any() for name in plain)


def test_every_block_is_somewhere() -> None:
    texts = "".join(path.read_text(encoding="utf-8") for path in TEXTS)
    assert all(f"<!-- figures: {name} -->" in texts for name in BLOCKS)
    with pytest.raises(KeyError):
        rewritten("<!-- figures: nothing -->\n<!-- end of figures -->", kept())


def test_every_attack_and_model_has_its_figures() -> None:
    figures = kept()
    described = {one["name"]: one for one in figures["attacks"]}
    assert set(described) == {attack.name for attack in ATTACKS}, RENEW
    for attack in ATTACKS:
        said = described[attack.name]
        assert (said["level"], said["cites"]) == (attack.level, attack.cites), RENEW
    assert len(figures["models"]) == len(CASES), RENEW
    for model in figures["models"]:
        assert set(model["attacks"]) | set(model["unmounted"]) == set(described), RENEW


def test_a_model_measured_again_replaces_its_own_figures_alone() -> None:
    before = kept()
    last = {**before["models"][-1], "rows": 7, "finds": {ATTACKS[0].name: "another thing"}}
    after = renewed(before, last)
    assert after["models"][:-1] == before["models"][:-1]
    assert after["models"][-1] == {**before["models"][-1], "rows": 7}
    described = {one["name"]: one["finds"] for one in after["attacks"]}
    assert described[ATTACKS[0].name] == "another thing"


def still_hold(setting: Setting, scheme: str) -> None:
    """Measures one model again and compares every share with its figure."""
    try:
        now = measured(setting, scheme)
    except BenchError as absent:
        pytest.skip(str(absent))
    then = next(
        model
        for model in kept()["models"]
        if model["model"] == setting.model and model["scheme"] in (scheme, "either")
    )
    assert set(now["attacks"]) == set(then["attacks"]), RENEW
    for name, found in now["attacks"].items():
        for share in ("recovered", "control"):
            assert abs(found[share] - then["attacks"][name][share]) <= TOLERANCE, (
                f"{name}; {RENEW}"
            )


def test_the_figures_of_the_smallest_model_still_hold() -> None:
    still_hold(*CASES[0])


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "scheme"), CASES[1:])
def test_all_figures_still_hold(setting: Setting, scheme: str) -> None:
    still_hold(setting, scheme)
