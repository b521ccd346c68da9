"""What the engine `ray` asks for before it starts; all without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from triparty.cloud.app import check_engine
from triparty.cloud.serving import ray_backend
from triparty.cloud.serving.replica import ReplicaSettings
from triparty.cloud.settings import CloudSettings
from triparty.common.errors import SettingsError


def cloud(tmp_path: Path, **chosen: Any) -> CloudSettings:
    return CloudSettings.load(None, data=tmp_path, engine="ray", **chosen)


def with_ray(patch: pytest.MonkeyPatch, *, installed: bool) -> None:
    patch.setattr(ray_backend, "find_spec", lambda _: object() if installed else None)


def test_a_missing_ray_is_an_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_ray(monkeypatch, installed=False)
    with pytest.raises(SettingsError, match=r"pip install 'triparty\[ray\]'"):
        check_engine(cloud(tmp_path))
    with_ray(monkeypatch, installed=True)
    check_engine(cloud(tmp_path))


@pytest.mark.parametrize("mode", [None, "disabled"])
def test_a_cluster_that_asks_for_no_token_is_not_joined(
    mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_ray(monkeypatch, installed=True)
    chosen = cloud(tmp_path, ray_address="10.0.0.7:6379")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(SettingsError, match="RAY_AUTH_MODE=token"):
        check_engine(chosen)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    check_engine(chosen)


def test_replicas_are_told_no_secret(tmp_path: Path) -> None:
    secret = "s3cret" * 8
    chosen = cloud(
        tmp_path,
        operator_token=secret,
        metrics_token=secret,
        database=f"postgresql://user:{secret}@host/db",
        dtype="bfloat16",
    )
    told = ReplicaSettings.of(chosen)
    assert told.dtype == "bfloat16"
    assert secret not in repr(told)
    assert not {"database", "operator_token", "metrics_token"} & set(vars(told))
