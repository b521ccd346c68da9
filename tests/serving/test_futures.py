"""Futures put together: all results in order, or the first error, and nothing left running."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future

import pytest

from triparty.cloud.serving.futures import all_of


def parts() -> list[Future[int]]:
    return [Future() for _ in range(3)]


def test_results_come_in_order_whoever_is_first() -> None:
    some = parts()
    whole = all_of(some)
    for at in (2, 0):
        some[at].set_result(at)
        assert not whole.done()
    some[1].set_result(1)
    assert whole.result(0) == [0, 1, 2]


def test_the_first_error_ends_all() -> None:
    some = parts()
    whole = all_of(some)
    some[1].set_exception(ValueError("first"))
    with pytest.raises(ValueError, match="first"):
        whole.result(0)
    assert some[0].cancelled()
    assert some[2].cancelled()


def test_cancelling_cancels_what_is_left() -> None:
    some = parts()
    whole = all_of(some)
    some[0].set_result(0)
    assert whole.cancel()
    assert some[1].cancelled()
    assert some[2].cancelled()
    with pytest.raises(CancelledError):
        whole.result(0)


def test_an_error_from_outside_cancels_what_is_left() -> None:
    some = parts()
    whole = all_of(some)
    whole.set_exception(KeyError("closed"))
    assert all(part.cancelled() for part in some)
    with pytest.raises(KeyError):
        whole.result(0)


def test_parts_that_are_done_already_count() -> None:
    some = parts()
    for at, part in enumerate(some):
        part.set_result(at)
    assert all_of(some).result(0) == [0, 1, 2]
