"""Retries slow down, spread out, and begin anew only after a connection that held."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from triparty.device.streams.backoff import Backoff

AT_HOME = Backoff(first_s=1.0, longest_s=60.0)


def test_waits_double_up_to_the_bound() -> None:
    waits, state = [], AT_HOME
    for _ in range(9):
        state = state.failed()
        waits.append(state.mean_s())
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@given(failures=st.integers(1, 10_000), seed=st.integers())
def test_jitter_stays_within_half_of_the_mean(failures: int, seed: int) -> None:
    state = Backoff(first_s=0.5, longest_s=30, failures=failures)
    wait_s = state.wait_s(Random(seed))
    assert 0.5 * state.mean_s() <= wait_s <= 1.5 * state.mean_s() <= 45


def test_a_thousand_cameras_do_not_come_back_together() -> None:
    state = AT_HOME.failed()
    waits = {round(state.wait_s(Random(camera)), 3) for camera in range(1000)}
    assert len(waits) > 500


def test_a_flapping_camera_goes_on_waiting_longer() -> None:
    state = AT_HOME
    for _ in range(5):
        state = state.held(0.5).failed()
    assert state.mean_s() == 16
    assert state.held(1000).failures == 0
    assert state.held(1000).failed().mean_s() == 1


def test_refused_credentials_wait_longest_at_once() -> None:
    assert AT_HOME.failed(refused=True).mean_s() == 60
