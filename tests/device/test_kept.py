"""A kept session: whatever was asked before, an answer is that of a new session."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_cloud import POSITIONS, SmallCloud, V, small_bundle

from triparty.common.keying import Bundle
from triparty.common.shielding import Shield
from triparty.device.inference.conversation import Conversation
from triparty.device.inference.kept import Kept

IDS = st.lists(st.integers(0, V - 1), min_size=1, max_size=POSITIONS)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("bundle"))


def asked(cloud: SmallCloud, bundle: Bundle, ids: list[int], kept: Kept | None, **given):
    with Conversation(cloud, bundle, "known", version=1, kept=kept, **given) as conversation:
        rest = conversation.rest_of(ids)
        assert rest == ids[len(ids) - len(rest) :]
        return conversation.logits_after(rest)


@given(texts=st.lists(IDS, min_size=2, max_size=5), lost=st.integers(1, 12))
def test_answers_are_those_of_new_sessions(
    bundle: Bundle, texts: list[list[int]], lost: int
) -> None:
    cloud, kept = SmallCloud(), Kept()
    cloud.lose_before = {lost}
    for at, text in enumerate(texts):
        ids = [*texts[at - 1][: len(text) // 2], *text][:POSITIONS] if at else text
        got = asked(cloud, bundle, ids, kept)
        assert np.array_equal(got, asked(SmallCloud(), bundle, ids, None))
        texts[at] = ids
    assert len(cloud.sessions) <= 1


@pytest.mark.parametrize("block", [1, 4])
def test_a_text_that_goes_on_sends_its_end_alone(bundle: Bundle, block: int) -> None:
    cloud, kept = SmallCloud(), Kept()
    asked(cloud, bundle, [1, 2, 3, 4], kept, block=block)
    before = cloud.opened
    asked(cloud, bundle, [1, 2, 3, 4, 5], kept, block=block)
    assert (cloud.opened, len(cloud.sessions)) == (before, 1)
    asked(cloud, bundle, [1, 2, 0], kept, block=block)
    assert cloud.opened == before + (block > 1)
    assert len(cloud.sessions) == 1


def test_the_same_text_again_sends_its_last_row_again(bundle: Bundle) -> None:
    cloud, kept = SmallCloud(), Kept()
    first = asked(cloud, bundle, [1, 2, 3], kept)
    steps = cloud.steps
    assert np.array_equal(asked(cloud, bundle, [1, 2, 3], kept), first)
    assert cloud.steps == steps + 1
    assert cloud.opened == 1


def test_a_key_that_changed_ends_the_session(bundle: Bundle) -> None:
    cloud, kept = SmallCloud(), Kept()
    asked(cloud, bundle, [1, 2, 3], kept)
    kept.key = (9, 9)
    asked(cloud, bundle, [1, 2, 3, 4], kept)
    assert cloud.opened == 2
    assert len(cloud.sessions) == 1


def test_noise_is_one_for_all_turns(bundle: Bundle) -> None:
    cloud, kept, sent = SmallCloud(), Kept(), []
    for _ in range(2):
        asked(cloud, bundle, [1, 2, 3], kept, shield=Shield.fresh(noise=0.5))
        assert kept.session is not None
        sent.append(np.array(cloud.sessions[kept.session.id]))
        cloud.sessions.clear()  # the next turn replays
    assert np.array_equal(*sent)


def test_without_a_place_to_keep_it_a_session_ends(bundle: Bundle) -> None:
    cloud = SmallCloud()
    asked(cloud, bundle, [1, 2], None)
    assert not cloud.sessions
