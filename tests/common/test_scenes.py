"""Generated scenes: the same again from the same seed, and their boxes are where they say."""

from __future__ import annotations

import numpy as np
import pytest

from triparty.common import scenes
from triparty.common.scenes import Visit


@pytest.mark.parametrize("label", range(len(scenes.LABELS)))
def test_a_visit_changes_its_box_and_nothing_else(label: int) -> None:
    visit = Visit(label, 0.0, 1.0, (0.5, 0.6), (0.5, 0.6), 0.4, seed=3)
    (empty,) = scenes.film((), seconds=1, rate=1, seed=5)
    (shown,) = scenes.film((visit,), seconds=1, rate=1, seed=5)
    changed = np.argwhere((empty != shown).any(axis=2))
    left, top, right, bottom = visit.box(0.0) or (0, 0, 0, 0)
    (y0, x0), (y1, x1) = changed.min(axis=0), changed.max(axis=0) + 1
    assert x0 == pytest.approx(left * scenes.WIDTH, abs=6)
    assert x1 == pytest.approx(right * scenes.WIDTH, abs=6)
    assert y0 == pytest.approx(top * scenes.HEIGHT, abs=6)
    assert y1 == pytest.approx(bottom * scenes.HEIGHT, abs=6)


def test_a_film_is_the_same_again() -> None:
    visit = Visit(0, 1.0, 2.0, (-0.2, 0.6), (1.2, 0.6), 0.4)
    first, second = (
        np.stack(list(scenes.film((visit,), seconds=3, rate=2, seed=8))) for _ in range(2)
    )
    assert (first == second).all()
    assert first.shape == (6, scenes.HEIGHT, scenes.WIDTH, 3)
    assert (first[0] != first[3]).any()


def test_there_is_nobody_before_and_after_a_visit() -> None:
    visit = Visit(1, 1.0, 2.0, (0.5, 0.5), (0.6, 0.5), 0.2)
    assert visit.box(0.99) is None
    assert visit.box(1.0) is not None
    assert visit.box(2.0) is None


def test_things_of_a_picture_do_not_hide_each_other() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        _, things = scenes.picture(rng)
        for place, (_, one) in enumerate(things):
            for _, other in things[:place]:
                is_apart_x = one[2] < other[0] or other[2] < one[0]
                assert is_apart_x or one[3] < other[1] or other[3] < one[1]
