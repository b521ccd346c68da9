"""Ctrl-C in an answer: noted first, then it insists; handlers are put back."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from triparty.device.chat.stopping import stoppable


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def press_twice() -> None:
    with stoppable(60):
        press()
        press()


def never_ask() -> None:
    end = time.monotonic() + 30
    with stoppable(0.01):
        press()
        while time.monotonic() < end:
            time.sleep(0.01)


def handlers() -> tuple[object, object]:
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)


def test_it_is_noted_and_nothing_is_raised() -> None:
    before = handlers()
    with stoppable(60) as is_stopped:
        assert not is_stopped()
        press()
        assert is_stopped()
    assert handlers() == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_second_one_raises() -> None:
    before = handlers()
    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert handlers() == before


def test_a_block_that_does_not_ask_is_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt):
        never_ask()


def test_other_threads_are_left_alone() -> None:
    before, seen = handlers(), []

    def run() -> None:
        with stoppable() as is_stopped:
            seen.append((is_stopped(), handlers()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
