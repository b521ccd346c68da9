"""Many sites in one process: Flower's strategies and apps, without its network.

For studies and tests. Messages go through Flower's own serialisation in both directions, so
that what a site sees is a copy, and bytes are those of the wire.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from triparty.developer.federation.federation import Federation
from triparty.developer.federation.flower import (
    empty_run,
    message_bytes,
    message_of_bytes,
    named_node,
    own_messages,
)
from triparty.developer.federation.running import run

if TYPE_CHECKING:
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.supercore.run import Run

Site = Callable[[Message, Context], Message]
"""A ClientApp of Flower's, or anything that answers as one does."""

_APP_FAILED = 2  # Flower's code for an app that raised
_AT_ONCE = "a simulation answers at once: use send_and_receive"


class NoAnswerError(Exception):
    """Raised by a site of a simulation that dies in a round."""


@dataclass
class Simulation(Grid):
    """A grid whose sites are functions.

    Attributes:
        sites: by name, answer messages; `NoAnswerError` is a site that dies.
        sent_bytes: to sites so far, as Flower serialises messages.
        received_bytes: from sites.
    """

    sites: Mapping[str, Site]
    sent_bytes: int = 0
    received_bytes: int = 0
    _contexts: dict[int, Context] = field(default_factory=dict)

    def set_run(self, run: Run) -> None:
        """Does nothing: a simulation is one run."""

    @property
    def run(self) -> Run:
        """One that is empty."""
        return empty_run()

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """As Flower's grids do; `Message` itself is what to use."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """1 to the number of sites."""
        return list(self._numbered())

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The sites with their names."""
        return [named_node(number, name) for number, name in self._numbered().items()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not part of a simulation: use `send_and_receive`."""
        raise NotImplementedError(_AT_ONCE)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not part of a simulation: use `send_and_receive`."""
        raise NotImplementedError(_AT_ONCE)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Lets each site answer, one after another."""
        names = self._numbered()
        replies = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = secrets.token_hex(16)
            reply = self._answer(names[message.metadata.dst_node_id], message)
            if reply is not None:
                replies.append(reply)
        return replies

    def _answer(self, name: str, message: Message) -> Message | None:
        payload = message_bytes(message)
        self.sent_bytes += len(payload)
        number = message.metadata.dst_node_id
        context = self._contexts.setdefault(
            number, Context(1, number, {"name": name}, RecordDict(), {})
        )
        arrived = message_of_bytes(payload)
        try:
            reply = self.sites[name](arrived, context)
        except NoAnswerError:
            return None
        except Exception as error:  # noqa: BLE001  as Flower does
            reply = Message(Error(_APP_FAILED, str(error)), reply_to=arrived)
        back = message_bytes(reply)
        self.received_bytes += len(back)
        return message_of_bytes(back)

    def _numbered(self) -> dict[int, str]:
        return dict(enumerate(self.sites, start=1))


def simulate(federation: Federation, sites: Mapping[str, Site]) -> Simulation:
    """Runs the rounds that are left in this process; the grid tells bytes afterwards.

    Raises:
        FederationError: it cannot go on; the journal says why, too.
    """
    grid = Simulation(sites)
    with own_messages():
        run(federation, grid, Context(1, 1, {}, RecordDict(), {}))
    return grid
