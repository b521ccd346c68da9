"""A developer and a device, run by their own code, around a real cloud in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from cloud_on_wire import URL, CloudOnWire
from safetensors.numpy import save_file

from triparty.common import access as access_module
from triparty.common.deviceinfo import DeviceInfo
from triparty.common.invites import Invite
from triparty.common.transport import CloudClient
from triparty.developer.enroll import enroll as enroll_developer
from triparty.developer.grant import find_device, grant_model
from triparty.developer.home import Home as DeveloperHome
from triparty.developer.invite import invite_device
from triparty.developer.publish import publish_model
from triparty.developer.settings import DeveloperSettings
from triparty.device.enroll import enroll
from triparty.device.home import Home
from triparty.device.pull import Pulled, pull

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
V, D = 7, 4


def write_protected(out: Path, *, epoch: int) -> Path:
    """A folder as `protect` makes it, with a model that nobody runs."""
    rng = np.random.default_rng(epoch)
    for part in ("model", "device"):
        (out / part).mkdir(parents=True)
    (out / "model" / "config.json").write_text("{}")
    save_file({"w": rng.normal(size=(2, 2))}, out / "model" / "model.safetensors")
    rows = rng.normal(size=(V, D)).astype(np.float32)
    save_file({"rows": rows}, out / "device" / "embedding.safetensors")
    save_file(
        {"order": rng.permutation(V).astype(np.int32)}, out / "device" / "head.safetensors"
    )
    info = DeviceInfo(
        family="llama",
        task="causal-lm",
        interface="embeddings",
        width=D,
        vocabulary=V,
        outputs=V,
        max_positions=8,
        positions=False,
        segments=0,
        image=None,
        dtype="float32",
        transport="float32",
        bos_id=None,
        eos_ids=(),
        pad_id=None,
        chat_template=None,
        replies=("logits",),
        epoch=epoch,
    )
    (out / "device" / "device.json").write_bytes(info.to_json())
    (out / "device" / "tokenizer.json").write_text("{}")
    return out


@dataclass
class Exchange:
    """The three parties of a test; the wire between them is `wire`."""

    folder: Path
    wire: CloudOnWire
    settings: DeveloperSettings = field(default_factory=lambda: DeveloperSettings())
    published: int = 0

    def developer(self, name: str = "acme") -> DeveloperHome:
        """A new developer, enrolled."""
        home = DeveloperHome(self.folder / name)
        home.make_keys(key_days=self.settings.key_days, now=self.wire.now)
        invite = Invite(URL, None, None, "developer", name.ljust(32).encode())
        with CloudClient(self.wire.connection(token=self.wire.operator_token)) as operator:
            operator.create_invite(
                role="developer", login_hash=invite.login_hash, expires_in_s=60, label=name
            )
        enroll_developer(home, invite, cloud=URL, name=name, latest_days=30, now=self.wire.now)
        return home

    def publish(self, developer: DeveloperHome, name: str = "tiny", *, epoch: int = 1) -> None:
        """The next version of a model."""
        self.published += 1
        out = write_protected(self.folder / f"out{self.published}", epoch=epoch)
        publish_model(developer, out, name=name, settings=self.settings, now=self.wire.now)

    def invite(self, developer: DeveloperHome, *, label: str = "phone") -> Invite:
        code, _ = invite_device(developer, label=label, days=7, now=self.wire.now)
        return Invite.from_code(code)

    def device(self, developer: DeveloperHome, name: str = "phone") -> Home:
        """A new device, enrolled."""
        home = Home(self.folder / name)
        invite = self.invite(developer, label=name)
        enroll(home, invite, cloud=URL, name=name, now=self.wire.now)
        return home

    def grant(self, developer: DeveloperHome, device: str, name: str = "tiny") -> None:
        with developer.access().client() as client:
            grant_model(
                developer,
                client,
                developer.existing_model(name),
                find_device(developer, client, device),
                settings=self.settings,
                now=self.wire.now,
            )

    def pull(self, home: Home, name: str | None = None) -> Pulled:
        return pull(home, name=name, now=self.wire.now)


@contextmanager
def exchanging(folder: Path) -> Iterator[Exchange]:
    """While the block runs, every `Access` leads to a new cloud in the folder."""
    with CloudOnWire(folder / "cloud", now=NOW) as wire, pytest.MonkeyPatch.context() as patch:
        patch.setattr(access_module, "Connection", wire.connection)
        yield Exchange(folder, wire)


def content_of(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, with its bytes, but what was seen, which may rise."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != "seen.json"
    }
