"""What a model answers, the original's way and through a bundle, task by task.

Both run in stock `transformers` classes. The protected one is used as a cloud and a device
would use it together: keyed rows (or keyed ids) in, a keyed answer out, which the bundle
reads back.
"""

from __future__ import annotations

from collections.abc import Mapping

from triparty.common.errors import UnsupportedModelError
from triparty.developer.answers.causal import CausalTask
from triparty.developer.answers.encoders import EncoderTask
from triparty.developer.answers.images import ImageTask
from triparty.developer.answers.pairs import PairTask
from triparty.developer.answers.seq2seq import Seq2SeqTask
from triparty.developer.answers.task import Answers, Task, TextTask
from triparty.developer.answers.visual import VisualTask

_TASKS: Mapping[str, Task] = {
    "causal-lm": CausalTask(),
    "masked-lm": EncoderTask("AutoModelForMaskedLM", "logits", per_token=True),
    "seq2seq-lm": Seq2SeqTask(),
    "sequence-classification": EncoderTask(
        "AutoModelForSequenceClassification", "logits", per_token=False
    ),
    "sentence-embedding": EncoderTask("AutoModel", "last_hidden_state", per_token=True),
    "image-classification": ImageTask(),
    "image-text-embedding": PairTask(),
    "image-text-to-text": VisualTask(),
}


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
