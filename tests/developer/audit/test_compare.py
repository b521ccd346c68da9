"""The table of mitigations: what each leaks and costs, measured on a trained model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from triparty.common.decoys import DecoyKind, DecoyTexts
from triparty.common.errors import SettingsError
from triparty.developer.audit import Level
from triparty.developer.audit.attacks import AttentionMaps, Echo, Frequency, TrafficShape
from triparty.developer.audit.compare import compare, leakage_of
from triparty.developer.audit.comparison import Comparison, table
from triparty.developer.audit.mitigations import MITIGATIONS, Mitigation
from triparty.developer.audit.naming import named_shares, requests_among_decoys
from triparty.developer.audit.plausible import drawn_texts, unigrams
from triparty.developer.audit.stage import QUICK, texts_of
from triparty.developer.stock import load_model

NAMES = (
    "permutation",
    "orthogonal",
    "bf16 rows",
    "noise 50%",
    "expanded to twice the width",
    "head on the device",
    "9 decoys (unigram)",
    "9 decoys (text)",
    "noise 50%, 256 rows a key",
)


@pytest.fixture(scope="module")
def comparison(stories_model: Path) -> Comparison:
    chosen = [m for m in MITIGATIONS if m.name in NAMES]
    return compare(stories_model, mitigations=chosen, effort=QUICK)


def test_every_mitigation_has_its_line(comparison: Comparison) -> None:
    by_name = {line.name: line for line in comparison.measured}
    assert set(by_name) == set(NAMES)
    assert comparison.positions >= 1000
    assert 0.01 < comparison.guess < 0.1
    lines = table(comparison).splitlines()
    assert all(any(line.startswith(name) for line in lines) for name in NAMES)


def test_what_it_leaks_and_costs(comparison: Comparison) -> None:
    lines = {line.name: line for line in comparison.measured}
    for name in ("permutation", "orthogonal", "expanded to twice the width"):
        assert lines[name].clear == 1.0, name
        assert lines[name].agreement > 0.999, name
        assert lines[name].perplexity_ratio == pytest.approx(1, abs=1e-3)
    noisy = lines["noise 50%"]
    assert noisy.clear > 0.9, "noise does not hide what a fixed key shows"
    assert noisy.agreement < 0.95
    assert noisy.perplexity_ratio > 1.05
    assert lines["noise 50%, 256 rows a key"].rows == 256
    assert lines["bf16 rows"].bytes_ratio < 1
    assert lines["bf16 rows"].agreement > 0.97
    assert lines["head on the device"].bytes_ratio < 0.5, "D numbers come back, not V"
    assert 1.0 < lines["expanded to twice the width"].bytes_ratio < 1.3
    decoys = lines["9 decoys (text)"]
    assert decoys.bytes_ratio == pytest.approx(10)
    assert decoys.agreement > 0.999
    assert decoys.clear == 1.0
    assert decoys.attributed == pytest.approx(max(decoys.named.values()))
    assert decoys.attributed < 0.5
    assert lines["9 decoys (unigram)"].named["likelihood"] > 0.9
    for line in comparison.measured:
        assert line.bytes_per_instance > 1e6
        assert line.seconds_per_instance > 0
        assert line.device_ratio > 0
        assert line.cloud_ratio > 0


def test_what_shows_without_naming_a_token_is_not_read(
    stories_model: Path, scene_of: Any
) -> None:
    scene = scene_of(stories_model, scheme="permutation")
    shown = TrafficShape().mount(scene.knowledge.at(Level.K0)).score(scene.truth)
    assert shown > 0.5, "most rows come again"
    found = leakage_of(scene, [TrafficShape(), AttentionMaps(), Echo(), Frequency()])
    assert set(found[Level.K0]) == {"frequency"}


def test_attackers_count_text_of_the_same_distribution(comparison: Comparison) -> None:
    by_name = {line.name: line for line in comparison.measured}
    counted = by_name["orthogonal"].leakage[Level.K0]["frequency"]
    assert counted > 3 * comparison.guess, "a thousand rows give the frequent words"
    through = by_name["noise 50%"].leakage[Level.K0]["frequency"]
    assert through > 3 * comparison.guess, "noise leaves rows of one token near each other"


@pytest.fixture(scope="module")
def with_positions(capp_model: Path) -> Comparison:
    names = ("orthogonal", "noise 50%", "head on the device", "expanded to twice the width")
    chosen = [m for m in MITIGATIONS if m.name in names]
    return compare(capp_model, mitigations=chosen, effort=QUICK)


def test_models_that_send_sums_with_positions_are_compared(with_positions: Comparison) -> None:
    by_name = {line.name: line for line in with_positions.measured}
    assert set(by_name) == {"orthogonal", "noise 50%", "head on the device"}
    for name in ("orthogonal", "head on the device"):
        assert by_name[name].clear == 1.0, name
        assert by_name[name].agreement > 0.999, name
    assert by_name["noise 50%"].agreement < 0.95
    read = by_name["noise 50%"].leakage[Level.K2]
    assert read["noisy-rows"] > 0.9, "the key is found beside what positions add"
    without_noise = by_name["orthogonal"].leakage[Level.K2]["gram"]
    assert read["gram"] < without_noise == 1.0, "how much is left depends on the draw"


def test_texts_are_as_long_as_a_model_has_positions(make_model: Any) -> None:
    model = load_model(make_model("gpt2", n_positions=12))
    effort = replace(QUICK, rows=100, most=100, decoys=4, judged=3, requests=5)
    texts = texts_of(model, effort)
    assert {each.shape for each in (texts.kept, texts.judged)} == {(4, 12), (3, 12)}
    assert texts.traffic.shape == (9, 12), "a hundred rows"


def test_what_a_family_cannot_do_is_named_and_left_out(with_positions: Comparison) -> None:
    (name,) = with_positions.refused
    assert name == "expanded to twice the width"
    assert "cannot be expanded" in with_positions.refused[name]
    assert f"{name}: not for this model: " in table(with_positions)


def test_models_that_write_no_text_are_refused(minilm_model: Path) -> None:
    with pytest.raises(SettingsError, match="no decoder"):
        compare(minilm_model, mitigations=[Mitigation("permutation")], effort=QUICK)


def test_decoys_are_told_by_what_gives_them_away(stories_model: Path) -> None:
    model = load_model(stories_model)
    kept, real = (
        drawn_texts(model, count, 24, seed=seed) for count, seed in ((300, 1), (60, 2))
    )
    counted = unigrams(kept, 512)

    def shares(kind: DecoyKind, spent: bool = True) -> dict[str, float]:
        texts = DecoyTexts(list(kept), kind)
        requests, places = [], []
        for question in real:
            if not spent:
                texts.spent.clear()
            asked, place = requests_among_decoys(question[None], 4, texts, Random(len(places)))
            requests.append(asked)
            places.append(place)
        found = named_shares(
            np.concatenate(requests), np.concatenate(places), model=model, unigrams=counted
        )
        return dict(found)

    assert shares(DecoyKind.UNIGRAM)["likelihood"] > 0.95
    assert shares(DecoyKind.BIGRAM)["likelihood"] > 0.8
    like = shares(DecoyKind.TEXT)
    assert max(like.values()) < 0.2 + 4 * np.sqrt(0.2 * 0.8 / 60)
    assert like["repetition"] == pytest.approx(0.2, abs=0.04), "hardly a beginning comes twice"
    again = shares(DecoyKind.TEXT, spent=False)
    assert again["repetition"] > 0.35, "texts that come again are decoys"


def test_drawn_texts_are_the_model_s_own_and_repeat_by_seed(stories_model: Path) -> None:
    model = load_model(stories_model)
    texts = [drawn_texts(model, 3, 12, seed=seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(texts[0], texts[1])
    assert not np.array_equal(texts[0], texts[2])
    assert texts[0].shape == (3, 12)
    assert set(texts[0][:, 0]) == {1}
    assert not np.isin(texts[0][:, 1:], [1, 2]).any()


@pytest.mark.slow
def test_training_under_noise_buys_accuracy_and_no_privacy(stories_model: Path) -> None:
    chosen = [
        Mitigation("plain", noise=1.0),
        Mitigation("tuned", noise=1.0, tuned_under=1.0),
    ]
    plain, tuned = compare(
        stories_model, mitigations=chosen, effort=replace(QUICK, tuning=150)
    ).measured
    assert tuned.agreement > plain.agreement + 0.1
    assert tuned.perplexity_ratio < plain.perplexity_ratio
    assert tuned.clear > 0.8
