"""What the modules of a stock model read and answer during one run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.developer.answers.task import as_array

if TYPE_CHECKING:
    from torch import nn

Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module.

    Attributes:
        module: its name.
        number: how many calls of it came before.
        given: what it read; None if that is no tensor of numbers.
        answer: what it answered; None if that is not one tensor.
    """

    module: str
    number: int
    given: Values | None
    answer: Values | None


@contextmanager
def recording(model: nn.Module, names: Iterable[str]) -> Iterator[list[Call]]:
    """Every call of some modules inside the block, in the order in which they end.

    Args:
        model: a stock model.
        names: of modules; those that the model lacks are left out.
    """
    modules = dict(model.named_modules())
    calls: list[Call] = []

    def note(
        name: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any
    ) -> None:
        before = sum(call.module == name for call in calls)
        given = next((a for a in (*args, *kwargs.values()) if hasattr(a, "dtype")), None)
        calls.append(Call(name, before, _values(given), _values(out)))

    hooks = [
        modules[name].register_forward_hook(partial(note, name), with_kwargs=True)
        for name in names
        if name in modules
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _values(tensor: Any) -> Values | None:
    """A copy, since stock code may go on to change a tensor in place."""
    import torch

    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        return None
    return np.array(as_array(tensor.detach().cpu()))
