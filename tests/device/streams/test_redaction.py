"""No form of a camera's credentials is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.errors import SettingsError
from triparty.device.streams.addresses import PROTOCOLS, Address
from triparty.device.streams.redaction import redacted, scrubbed, secrets_of


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        ("rtsp://admin:***@cam/1", "rtsp://admin:hunter22@cam/1"),
        ("cannot open rtsp://a:***@b", "cannot open rtsp://a:p@ss:word@b"),
        ("http://***@cam/x", "http://token12345@cam/x"),
        ("http://cam/x?user=***&pwd=***&w=3", "http://cam/x?user=bob&pwd=abcd&w=3"),
        ("http://cam/x?access_token=***", "http://cam/x?access_token=abcd"),
        ("Authorization: Basic ***", "Authorization: Basic YWRtaW46aHVudGVyMjI="),
        ("rtsp://cam:554/a@b", "rtsp://cam:554/a@b"),
        ("mail me at a@b.example", "mail me at a@b.example"),
    ],
)
def test_addresses_lose_their_credentials(shown: str, text: str) -> None:
    assert redacted(text) == shown


WORD = st.text("abcXYZ019!$%&*+,;=:@ /?#ü", min_size=4, max_size=12)


@given(password=WORD)
def test_a_password_is_gone_in_every_encoding(password: str) -> None:
    from urllib.parse import quote, quote_plus

    encoded = quote(password, safe="")
    url = f"rtsp://admin:{encoded}@10.0.0.1/live"
    secrets = secrets_of(url)
    for form in (password, encoded, quote_plus(password)):
        assert form not in scrubbed(f"tried {url}; FFmpeg said '{form}' was wrong", secrets)


@pytest.mark.parametrize("password", ["pa/ss/word", "p@ss/w#rd", "p?ssword"])
def test_a_password_that_nobody_encoded_is_gone_too(password: str) -> None:
    address = Address.of(f"rtsp://admin:{password}@cam/live")
    seen = f"{address} {address!r} {address.scrub(f'failed: {address.url} with {password}')}"
    assert password not in seen
    assert "***" in seen


def test_an_address_shows_no_credentials() -> None:
    address = Address.of("rtsp://admin:hunter22@cam:554/live?token=abcdef")
    assert str(address) == "rtsp://admin:***@cam:554/live?token=***"
    assert "hunter22" not in repr(address)
    assert "abcdef" not in repr(address)
    assert address.url.startswith("rtsp://admin:hunter22@")


@pytest.mark.parametrize(
    ("warned", "text"),
    [
        (True, "rtsp://admin:pw@10.0.0.7/live"),
        (True, "http://cam.example/stream"),
        (False, "rtsps://cam.example/live"),
        (False, "rtsp://127.0.0.1:8554/live"),
        (False, "rtsp://[::1]:8554/live"),
        (False, "http://localhost/x"),
        (False, "clip.mp4"),
    ],
)
def test_a_plain_stream_over_a_network_is_warned_about(warned: bool, text: str) -> None:
    warning = Address.of(text).warning
    assert (warning is not None) is warned
    assert "pw@" not in (warning or "")


def test_each_scheme_names_the_protocols_that_ffmpeg_may_use() -> None:
    for scheme, protocols in PROTOCOLS.items():
        text = "clip.mp4" if scheme == "file" else f"{scheme}://cam/x"
        options = Address.of(text).options(timeout_s=2.5, more={})
        assert options["protocol_whitelist"] == protocols
        assert options.get("timeout") == (None if scheme == "file" else "2500000")
        assert options.get("rtsp_transport") == ("tcp" if scheme.startswith("rtsp") else None)
    assert all("file" not in PROTOCOLS[s].split(",") for s in PROTOCOLS if s != "file")


@pytest.mark.parametrize("name", ["protocol_whitelist", "format_whitelist"])
def test_the_list_of_protocols_cannot_be_configured_away(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Address.of("rtsp://cam/x").options(timeout_s=1, more={name: "file,tcp"})


@pytest.mark.parametrize("text", ["", "ftp://x:hunter22@y/z", "concat:a|b//", "rtsp:///x"])
def test_other_addresses_are_refused(text: str) -> None:
    if text.startswith("concat"):  # a name of a file, never a protocol
        assert Address.of(text).url.startswith("file:")
        return
    with pytest.raises(SettingsError) as refused:
        Address.of(text)
    assert "hunter22" not in refused.value.message
