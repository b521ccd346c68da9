"""A cloud restored from an old backup takes no device back to what it has seen replaced."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cloud_storage import CloudStorage, cloud_storage
from exchanges import write_protected
from live_cloud import Developer, LiveCloud
from mortal_cloud import MortalCloud

from triparty.cloud.backup import back_up, restore
from triparty.cloud.blob_stores import open_blob_store
from triparty.cloud.settings import load_settings
from triparty.common.errors import RollbackError
from triparty.device.client import Device


def copied(storage: CloudStorage, data: Path, folder: Path) -> Path:
    """What an operator brings back: a new folder, made of today's backup, later."""
    settings = load_settings(data)
    back_up(
        data,
        folder / "backups",
        database_url=settings.database_url,
        blobs=open_blob_store(settings),
        now=datetime.now(UTC),
    )
    database = storage.postgres and storage.postgres.url(storage.postgres.new_database())
    restore(folder / "backups", folder / "restored", database_url=database)
    return folder / "restored"


@pytest.mark.parametrize(
    "kind", ["sqlite+disk", pytest.param("postgresql+s3", marks=pytest.mark.slow)]
)
def test_an_old_backup_is_refused_until_its_developer_publishes(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    with (
        cloud_storage(kind, request) as storage,
        MortalCloud(tmp_path / "log") as cloud,
    ):
        data = tmp_path / "cloud"
        operator = storage.new_cloud(data)
        cloud.start(data)
        developer = Developer.new(LiveCloud(cloud.url, None, operator), tmp_path)
        developer.enroll()
        phone, tablet = Device(tmp_path / "phone"), Device(tmp_path / "tablet")
        for device, label in ((phone, "phone"), (tablet, "tablet")):
            device.enroll(developer.invite(label), name=label)
        outs = [write_protected(tmp_path / f"out{n}", epoch=1) for n in (1, 2, 3)]
        for number, out in enumerate(outs):
            (out / "model" / "config.json").write_text(json.dumps({"number": number}))
        developer.publish(outs[0])
        developer.grant("phone")
        developer.grant("tablet")
        old = copied(storage, data, tmp_path)
        developer.publish(outs[1])
        phone.pull()
        seen = developer.latest()
        held = phone.models()
        cloud.stop()

        cloud.start(old)
        assert developer.latest().sequence < seen.sequence
        with pytest.raises(RollbackError):
            phone.pull()
        assert phone.models() == held
        tablet.pull()  # it has seen nothing newer
        with pytest.raises(RollbackError):
            phone.pull()  # and asking again does not help

        developer.publish(outs[2])
        assert developer.latest().sequence > seen.sequence
        phone.pull()
        tablet.pull()
        (now,), (other,) = phone.models(), tablet.models()
        assert now.version == other.version > held[0].version
        cloud.stop()
