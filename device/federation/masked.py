"""The site's app for secure sums: Flower's SecAgg+ masks what it sends.

SecAgg+ exists for Flower's older client interface alone, so this is another app than
`client_app`; what is trained, and by what, is the same. No count and no loss is sent: those
would travel in clear.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.client import Client, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from triparty.common.errors import FederationError
from triparty.common.federation import Task
from triparty.device.federation.learner import Learner

Arrays = list[NDArray[Any]]
Scalar = bool | bytes | float | int | str


class MaskedSite(NumPyClient):
    """Trains when Flower asks; its answer is masked behind it.

    Args:
        open_learner: opens the site's data.
    """

    def __init__(self, open_learner: Callable[[], Learner]) -> None:
        """Opens nothing yet."""
        self._open_learner = open_learner

    def fit(
        self, parameters: Arrays, config: dict[str, Scalar]
    ) -> tuple[Arrays, int, dict[str, Scalar]]:
        """Trains; counts as one site whatever it has.

        Raises:
            FederationError: training failed; Flower tells the developer so, without a reason.
        """
        names, task = _asked(config)
        if len(names) != len(parameters):
            raise FederationError("not as many weights as names")
        weights = {
            name: np.asarray(value, np.float32)
            for name, value in zip(names, parameters, strict=True)
        }
        try:
            trained = self._open_learner().train(weights, task).weights
        except FederationError:
            raise
        except Exception as error:
            raise FederationError("training failed, the site's log says why") from error
        return [trained[name] for name in names], 1, {}


def masked_app(open_learner: Callable[[Context], Learner]) -> ClientApp:
    """An app for secure sums.

    Args:
        open_learner: opens the data of the site whose context it is given.
    """

    def client(context: Context) -> Client:
        return MaskedSite(lambda: open_learner(context)).to_client()

    return ClientApp(client_fn=client, mods=[secaggplus_mod])


def _asked(config: Mapping[str, object]) -> tuple[list[str], Task]:
    try:
        names, task = json.loads(str(config["names"])), json.loads(str(config["task"]))
    except (KeyError, ValueError) as error:
        raise FederationError("a message without a task") from error
    if not isinstance(names, list) or not isinstance(task, dict):
        raise FederationError("a message without a task")
    return [str(name) for name in names], Task.of_config(task)
