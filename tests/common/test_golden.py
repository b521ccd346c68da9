"""What is out there stays readable: bytes signed or sent, compared with `tests/golden/`."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from triparty.common.artifacts import Kind, verify_manifest
from triparty.common.invites import Invite, check_confirmation
from triparty.common.sealing import open_sealed
from triparty.common.trust import SignedDocument, verify_delegation, verify_latest
from triparty.common.wire import DType, decode_frames

FOLDER = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def maker() -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / "make_golden.py"))


def _signed(name: str) -> SignedDocument:
    return SignedDocument(
        (FOLDER / f"{name}.json").read_bytes(), (FOLDER / f"{name}.sig").read_bytes()
    )


def test_bytes_are_those_on_disk(maker: dict[str, Any]) -> None:
    made = maker["golden"]()
    for name, data in made.items():
        assert data == (FOLDER / name).read_bytes(), (
            f"{name} changed; if that is meant: python tests/golden/make_golden.py"
        )
    on_disk = {path.name for path in FOLDER.iterdir() if path.is_file()}
    assert on_disk == {*made, maker["SEALED"], "make_golden.py"}


def test_golden_documents_verify(maker: dict[str, Any]) -> None:
    now = maker["NOW"]
    delegation = verify_delegation(
        _signed("delegation"), root_fingerprint=maker["ROOT"].public.key_id, now=now
    )
    latest = verify_latest(_signed("latest"), delegation, now=now)
    for kind in (Kind.MODEL, Kind.BUNDLE):
        signed = _signed(f"manifest-{kind}")
        manifest = verify_manifest(signed, delegation=delegation, now=now, latest=latest)
        assert (manifest.kind, manifest.name, manifest.version) == (kind, "tiny", 2)


def test_golden_invites_are_read(maker: dict[str, Any]) -> None:
    device = Invite.from_code((FOLDER / "invite-device.txt").read_text())
    assert (device.role, device.secret) == ("device", bytes(range(32)))
    assert device.login_hash == (FOLDER / "invite-device-login-hash.txt").read_text()
    check_confirmation(
        device.confirm_key,
        identity=maker["DEVICE"].public.raw,
        sealing=maker["SEALING"].public,
        tag=bytes.fromhex((FOLDER / "invite-device-confirmation.txt").read_text()),
    )
    assert Invite.from_code((FOLDER / "invite-developer.txt").read_text()).role == "developer"


def test_golden_frames_are_read() -> None:
    frames = decode_frames((FOLDER / "frames.tpf").read_bytes(), limit_bytes=1000)
    assert [(frame.dtype, frame.array.shape) for frame in frames] == [
        (DType.F32, (2, 3)),
        (DType.F16, (2, 3)),
        (DType.BF16, (2, 3)),
        (DType.I32, (1, 2, 1, 1)),
        (DType.I64, ()),
        (DType.F32, (0, 3)),
    ]
    assert float(frames[2].as_float32()[1, 1]) == 3.25


def test_golden_bundle_opens(maker: dict[str, Any], tmp_path: Path) -> None:
    sealed = FOLDER / maker["SEALED"]
    assert sealed.read_bytes()[:8] == b"TPS1\x50\0\0\0"
    open_sealed(sealed, tmp_path / "opened", maker["SEALING"], **maker["USE"])
    for path, data in maker["FILES"].items():
        assert (tmp_path / "opened" / path).read_bytes() == data
