"""What the device's client refuses before anything is sent."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from exchanges import exchanging

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.errors import RequestError
from triparty.device.client import Device


def test_a_model_that_writes_no_text_is_not_asked_to(tmp_path: Path) -> None:
    with exchanging(tmp_path) as exchange:
        developer = exchange.developer()
        exchange.publish(developer)
        phone = exchange.device(developer)
        exchange.grant(developer, "phone")
        exchange.pull(phone)
        file = phone.bundle_folder("tiny") / "device.json"
        info = DeviceInfo.from_json(file.read_bytes())
        file.write_bytes(
            dataclasses.replace(info, family="bert", task="sentence-embedding").to_json()
        )
        assert json.loads(file.read_text())["task"] == "sentence-embedding"
        with pytest.raises(RequestError, match="sentence-embedding"):
            Device(phone.folder).generate("tiny", "Hello")
