"""How many cores a small training may take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Computes on one core for a while.

    Matrices this small gain little from a second thread, and two threads that wait for each
    other come to a crawl as soon as another process wants one of the cores.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
