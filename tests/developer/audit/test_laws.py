"""What every attack of the audit has to be, whatever it does."""

from __future__ import annotations

from typing import Any

import pytest

from triparty.developer.audit import ATTACKS, Attack, Level, audit

named = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


@named
def test_it_says_what_it_is(attack: Attack) -> None:
    assert [other.name for other in ATTACKS].count(attack.name) == 1
    for text in (attack.cites, attack.means, attack.remedy):
        assert text
    for sentence in (attack.means, attack.remedy):
        assert sentence.endswith(".")


@pytest.mark.parametrize(
    ("family", "scheme"),
    [
        ("llama", "orthogonal"),
        ("gpt2", "permutation"),
        pytest.param("llama", "permutation", marks=pytest.mark.slow),
        pytest.param("gpt2", "orthogonal", marks=pytest.mark.slow),
    ],
)
def test_all_are_mounted_or_say_why_not(
    family: str, scheme: str, make_model: Any, scene_of: Any
) -> None:
    """None fails on a model, and none finds something where there is nothing."""
    found = audit(scene_of(make_model(family), scheme=scheme, instances=2))
    names = {finding.name for finding in found.findings}
    assert names | {attack.name for attack in found.unmounted} == {a.name for a in ATTACKS}
    assert all(attack.reason for attack in found.unmounted)
    for finding in found.findings:
        assert 0 <= finding.recovered <= 1
        assert finding.control <= 0.1, finding.name


def test_a_level_gets_what_it_may_know_and_no_more(make_model: Any, scene_of: Any) -> None:
    whole = scene_of(make_model("llama")).knowledge
    has = {
        level: {
            name
            for name in ("hosted", "known", "table", "base", "bundle")
            if getattr(whole.at(level), name) is not None
        }
        for level in Level
    }
    assert has[Level.K0] == {"hosted"}
    assert has[Level.K1] == {"hosted", "known"}
    assert has[Level.K2] == {"hosted", "known", "table"}
    assert has[Level.K3] == {"hosted", "known", "table", "base"}
    assert has[Level.K4] == {"hosted", "known", "table", "base", "bundle"}
