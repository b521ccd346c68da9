"""A site's answer to a message: train, and say nothing but weights and numbers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict

from triparty.common.errors import FederationError
from triparty.common.federation import ARRAYS, CONFIG, EXAMPLES, LOSS, METRICS, Task, Weights
from triparty.device.federation.learner import Learner

_MOST_VALUES = 1 << 26
_FAILED = 2  # Flower's code for an app that failed
_log = logging.getLogger(__name__)


def answer(message: Message, open_learner: Callable[[], Learner]) -> Message:
    """The reply to a message that asks for training; an error if the site will not or cannot.

    Flower would send the text of any exception to the developer, and such a text may quote
    data: only a `FederationError`, which is about the question alone, is told in words.

    Args:
        message: weights and a task, from whoever runs the SuperLink.
        open_learner: opens the site's data.
    """
    try:
        return _trained(message, open_learner)
    except FederationError as error:
        return Message(Error(_FAILED, error.message), reply_to=message)
    except Exception:  # noqa: BLE001  its text stays here
        _log.exception("training failed; the developer is told only that")
        return Message(
            Error(_FAILED, "training failed, the site's log says why"), reply_to=message
        )


def _trained(message: Message, open_learner: Callable[[], Learner]) -> Message:
    weights = _weights(message)
    task = Task.of_config(message.content.config_records.get(CONFIG, {}))
    trained = open_learner().train(weights, task)
    arrays = ArrayRecord({name: Array(value) for name, value in trained.weights.items()})
    loss = trained.loss if math.isfinite(trained.loss) else -1.0
    metrics = MetricRecord({EXAMPLES: trained.examples, LOSS: float(loss)})
    return Message(RecordDict({ARRAYS: arrays, METRICS: metrics}), reply_to=message)


def _weights(message: Message) -> Weights:
    record = message.content.array_records.get(ARRAYS)
    if record is None:
        raise FederationError("a message without weights")
    weights: Weights = {}
    for name, array in record.items():
        if len(array.data) > 4 * _MOST_VALUES:
            raise FederationError(f"{name!r:.80} has {len(array.data)} bytes, too many")
        try:
            values = array.numpy()
        except (ValueError, TypeError, EOFError, SyntaxError) as error:
            raise FederationError(f"{name!r:.80} cannot be read") from error
        if values.dtype != np.float32:
            raise FederationError(f"{name!r:.80} has dtype {values.dtype}, expected float32")
        weights[name] = values
    return weights
