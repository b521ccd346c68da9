"""A device's part in a federation: its key, what it trusts, its SuperNode.

A SuperNode runs code that its SuperLink names. This one takes apps that the developer's key
signed, and nothing else: whoever gets hold of the SuperLink still runs nothing here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from triparty.common.errors import FederationError
from triparty.common.federation import TRUST_ID, Call
from triparty.common.files import make_private_folder, write_atomic, write_private
from triparty.common.keyfiles import read_private
from triparty.common.processes import Program

_QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    "NO_COLOR": "1",
}
DATA: Final = "data"
_AGAIN_S: Final = 5.0


@dataclass(frozen=True)
class Site:
    """What a device keeps for federations.

    Attributes:
        folder: of its own; made if absent.
    """

    folder: Path

    def public_key(self) -> bytes:
        """The key by which a developer knows this site, in OpenSSH form; made once.

        Raises:
            StateError: the private key is readable by others.
        """
        path = self.folder / "node.key"
        if not path.exists():
            make_private_folder(self.folder)
            made = generate_private_key(SECP384R1())
            write_private(
                path, made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
            )
        key = load_ssh_private_key(read_private(path), None)
        return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)

    @contextmanager
    def supernode(self, call: Call, data: Path, *, port: int) -> Iterator[Program]:
        """Flower's SuperNode for as long as the block lasts.

        Args:
            call: the developer's.
            data: recorded outputs of this site.
            port: of loopback, on which the SuperNode talks to what it starts.

        Raises:
            FederationError: a path that Flower cannot be told.
            StateError: Flower is not installed.
        """
        program = self._start(call, data, port)
        try:
            yield program
        finally:
            program.stop()

    def join(
        self,
        call: Call,
        data: Path,
        *,
        port: int,
        on_start: Callable[[Program], None] = lambda program: None,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """Takes part until it is stopped; a SuperNode that ends is started again."""
        while goes_on():
            with self.supernode(call, data, port=port) as program:
                on_start(program)
                while goes_on() and program.is_running():
                    time.sleep(0.2)
            if goes_on():
                time.sleep(_AGAIN_S)

    def _start(self, call: Call, data: Path, port: int) -> Program:
        self.public_key()
        where = str(data.resolve())
        if '"' in where or "\\" in where or not where.isprintable():
            raise FederationError(f"Flower cannot be told this path: {where!r:.200}")
        authority, trusted = self.folder / "ca.pem", self.folder / "trusted.yaml"
        write_atomic(authority, call.certificate.encode())
        # JSON is YAML.
        write_atomic(trusted, json.dumps({TRUST_ID: call.signer}).encode())
        return Program.start(
            (
                "flower-supernode",
                *("--superlink", call.superlink),
                *("--root-certificates", str(authority)),
                *("--auth-supernode-private-key", str(self.folder / "node.key")),
                *("--trusted-entities", str(trusted)),
                *("--isolation", "subprocess"),
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--node-config", f'{DATA}="{where}"'),
            ),
            environment={**_QUIET, "FLWR_HOME": str(self.folder.resolve() / "flower")},
            log=self.folder / "supernode.log",
        )
