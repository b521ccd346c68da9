"""What a model answers, the original's way and through a bundle, task by task.

Both run in stock `transformers` classes. The protected one is used as a cloud and a device
would use it together: keyed rows (or keyed ids) in, a keyed answer out, which the bundle
reads back.
"""

from __future__ import annotations

from collections.abc import Mapping

from triparty.common.errors import UnsupportedModelError
from triparty.developer.answers.causal import CausalTask
from triparty.developer.answers.task import Answers, Task, TextTask

_TASKS: Mapping[str, Task] = {"causal-lm": CausalTask()}


def task_of(name: str) -> Task:
    """How a task of `device.json` is run.

    Raises:
        UnsupportedModelError: a task that cannot be run here.
    """
    if name not in _TASKS:
        raise UnsupportedModelError(
            f"models of the task {name!r} cannot be run here; there is: {', '.join(_TASKS)}"
        )
    return _TASKS[name]


__all__ = ["Answers", "Task", "TextTask", "task_of"]
