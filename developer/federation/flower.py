"""Everything private of Flower 1.41 that this project touches, and nothing else.

The public façades (`flwr.app`, `flwr.serverapp`) cover rounds and messages. They do not cover
three things: an app that a SuperNode with `--trusted-entities` takes (no command of one's own
SuperLink signs one), sites that are known by name before a SuperLink runs, and messages in
a process that Flower did not start. `tests/developer/federation` holds each against the
installed version, which `pyproject.toml` pins.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.app import Array, ArrayRecord

from triparty.common.errors import FederationError
from triparty.common.federation import APP, TRUST_ID, Weights
from triparty.common.signing import to_base64url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flwr.app import Message
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.serverapp import Grid
    from flwr.supercore.run import Run

QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    "NO_COLOR": "1",
}
"""Environment of every process of Flower: no telemetry, no calls home, nothing installed."""


def arrays_of(record: ArrayRecord | None) -> Weights:
    """The arrays of a record by name.

    Raises:
        ValueError, TypeError, EOFError, SyntaxError: bytes that are no arrays.
    """
    return {} if record is None else {name: array.numpy() for name, array in record.items()}


def record_of(weights: Weights) -> ArrayRecord:
    """The record that carries arrays."""
    return ArrayRecord({name: Array(np.ascontiguousarray(w)) for name, w in weights.items()})


def site_names(grid: Grid) -> dict[int, str]:
    """The connected nodes by the names under which they were registered."""
    return {node.node_id: node.name or f"node {node.node_id}" for node in grid.get_nodes()}


def is_expired(reply: Message) -> bool:
    """Whether a reply is the SuperLink's word that a question or its answer came too late."""
    from flwr.common.constant import ErrorCode

    late = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)
    return reply.has_error() and reply.error.code in late


def build_app(serverapp: str, clientapp: str) -> bytes:
    """An app of Flower that holds no code: two references into installed packages."""
    from flwr.cli.build import build_fab_from_files

    project = f"""[project]
name = "links"
version = "1.0.0"
description = "Model links of triparty, trained across sites"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "triparty"
fab-include = ["pyproject.toml"]

[tool.flwr.app.components]
serverapp = "{serverapp}"
clientapp = "{clientapp}"

[tool.flwr.app.config]
"""
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        warnings.catch_warnings(action="ignore", category=DeprecationWarning),
    ):
        content, _ = build_fab_from_files({"pyproject.toml": project.encode()})
    return content


def sign_app(content: bytes, key: Ed25519PrivateKey, *, signed_at: int) -> dict[str, str]:
    """What a SuperNode checks before it runs an app.

    Args:
        content: of the app.
        key: of the developer.
        signed_at: seconds since 1970.
    """
    message = signed_at.to_bytes(8, "big") + hashlib.sha256(content).digest()
    said = {"signed_at": signed_at, "signature": to_base64url(key.sign(message))}
    return {TRUST_ID: json.dumps(said), "valid_license": "Valid"}


def prepare_superlink(
    database: Path,
    *,
    app: bytes,
    verifications: Mapping[str, str],
    sites: Mapping[str, bytes],
) -> None:
    """Puts app and sites into the database of a SuperLink that does not run.

    Args:
        database: SQLite; made if absent.
        app: that `flwr run` starts as `common.federation.APP`.
        verifications: by `sign_app`; without them no site runs it.
        sites: P-384 public keys in OpenSSH form by name; who is not named may not join.
    """
    from flwr.common.constant import (
        HEARTBEAT_DEFAULT_INTERVAL,
        NOOP_ACCOUNT_NAME,
        NOOP_FLWR_AID,
    )
    from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
    from flwr.supercore.fab import Fab
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes
    from flwr.superlink.config_loader import (
        get_federation_manager,
        get_objectstore_linkstate_factories,
    )

    _, factory = get_objectstore_linkstate_factories(str(database), get_federation_manager())
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        state = factory.state()
    fab = Fab(hashlib.sha256(app).hexdigest(), app, dict(verifications))
    state.store_app(
        fab=fab,
        federation_id=NOOP_FEDERATION_ID,
        app_id=APP,
        app_type=TaskType.SERVER_APP,
        added_by=NOOP_FLWR_AID,
        is_hub_app=True,  # else `flwr run` would store it again, without the signature
    )
    known = {node.public_key: node for node in state.get_node_info(owner_aids=[NOOP_FLWR_AID])}
    wanted = {public_key_to_bytes(_elliptic(key)): name for name, key in sites.items()}
    for key, node in known.items():
        if key not in wanted or wanted[key] != node.name:
            state.delete_node(owner_aid=NOOP_FLWR_AID, node_id=node.node_id)
    for key, name in wanted.items():
        if key not in known or known[key].name != name:
            state.create_node(
                owner_aid=NOOP_FLWR_AID,
                owner_name=NOOP_ACCOUNT_NAME,
                public_key=key,
                heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL,
                name=name,
            )


def _elliptic(key: bytes) -> EllipticCurvePublicKey:
    found = load_ssh_public_key(key)
    if not isinstance(found, EllipticCurvePublicKey):
        raise FederationError("a site's key is no elliptic one: register the site again")
    return found


@contextmanager
def own_messages() -> Iterator[None]:
    """Lets this process make messages, as Flower does for the processes that it starts."""
    from flwr.supercore.task_identity import TaskIdentity

    identity: Any = TaskIdentity
    before = (identity._task_id, identity._run_id, identity._node_id)
    identity.task_id = identity.run_id = identity.node_id = 1
    try:
        yield
    finally:
        identity._task_id, identity._run_id, identity._node_id = before


def message_bytes(message: Message) -> bytes:
    """A message as Flower serialises it, weights and all."""
    from flwr.common.serde import message_to_proto

    return bytes(message_to_proto(message).SerializeToString())


def message_of_bytes(payload: bytes) -> Message:
    """The message of such bytes."""
    from flwr.common.serde import message_from_proto
    from flwr.proto.message_pb2 import Message as MessageProto

    return message_from_proto(MessageProto.FromString(payload))


def named_node(number: int, name: str) -> NodeInfo:
    """What a grid says of a connected node."""
    from flwr.proto.node_pb2 import NodeInfo

    return NodeInfo(node_id=number, name=name)


def empty_run() -> Run:
    """What a grid says of a run that no SuperLink knows."""
    from flwr.supercore.run import Run

    return Run.create_empty(run_id=1)
