from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.documents import (
    MAX_DOCUMENT_BYTES,
    canonical,
    check_integer,
    check_name,
    format_time,
    parse,
    parse_time,
    read_document,
    write_document,
)
from triparty.common.errors import FormatVersionError, ManifestError, SizeError

_SCALARS = st.none() | st.booleans() | st.integers() | st.text()
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(_VALUES)
def test_canonical_round_trip(value: object) -> None:
    assert parse(canonical(value)) == value


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b'{"a":1,"a":1}', "duplicate key"),
        (b'{"a":1}x', "Extra data"),
        (b'{"a":1}{"a":1}', "Extra data"),
        (b'{"a":1}\n', "canonical"),
        (b'{"a": 1}', "canonical"),
        (b'{"b":1,"a":1}', "canonical"),
        (b'"\\u0041"', "canonical"),
        (b"1.0", "integers alone"),
        (b"1e3", "integers alone"),
        (b"NaN", "integers alone"),
        (b"-Infinity", "integers alone"),
        (b"-0", "canonical"),
        (b'"\\ud800"', "no canonical JSON"),
        (b"\xff", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 5000, "not JSON"),
    ],
)
def test_parse_refuses(payload: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        parse(payload)


def test_parse_refuses_large_documents_unread() -> None:
    with pytest.raises(SizeError):
        parse(b" " * (MAX_DOCUMENT_BYTES + 1))


def test_read_document_names_what_is_wrong() -> None:
    payload = write_document("t", {"a": 1})
    assert read_document(payload, "t", ["a"]).integer("a") == 1
    for kind, names, message in (
        ("u", ["a"], "type 'u'"),
        ("t", ["a", "b"], "member 'b' is missing"),
        ("t", [], "unknown member 'a'"),
    ):
        with pytest.raises(ManifestError, match=message):
            read_document(payload, kind, names)


def test_a_newer_format_is_told_apart_before_its_members() -> None:
    payload = canonical({"type": "t", "format_version": 2, "news": True})
    with pytest.raises(FormatVersionError, match="update triparty"):
        read_document(payload, "t", ["a"])


@pytest.mark.parametrize("version", [0, -1, "1", True, None])
def test_no_other_format_version(version: object) -> None:
    with pytest.raises(ManifestError):
        read_document(canonical({"type": "t", "format_version": version}), "t", [])


@pytest.mark.parametrize("value", [[], "x", None, 3])
def test_members_have_their_types(value: object) -> None:
    members = read_document(write_document("t", {"a": value}), "t", ["a"])
    readers: dict[str, list[Callable[[str], object]]] = {
        "x": [members.integer, members.items, members.mapping, members.time],
        "[]": [members.integer, members.text, members.mapping, members.time],
        "3": [members.text, members.items, members.mapping, members.time],
        "None": [members.integer, members.text, members.items, members.mapping],
    }
    for reader in readers[str(value)]:
        with pytest.raises(ManifestError, match="'a'"):
            reader("a")


@given(st.datetimes(timezones=st.just(UTC)))
def test_time_round_trip(time: datetime) -> None:
    whole = time.replace(microsecond=0)
    assert parse_time(format_time(time)) == whole


def test_times_are_written_in_utc() -> None:
    east = timezone(timedelta(hours=2))
    assert format_time(datetime(2026, 1, 2, 5, 4, 5, 99, east)) == "2026-01-02T03:04:05Z"
    with pytest.raises(ManifestError, match="with a zone"):
        format_time(datetime(2026, 1, 2))


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-02T03:04:05+00:00",
        "2026-01-02T03:04:05.0Z",
        "2026-01-02 03:04:05Z",
        "2026-02-30T03:04:05Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:04:60Z",
        "20260102T030405Z",
        "2026-01-02T03:04:05Z\n",
        "\uff12026-01-02T03:04:05Z",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ManifestError, match="2026-01-02T03:04:05Z"):
        parse_time(text)


@pytest.mark.parametrize("name", ["", "-a", ".a", "_a", "A", "a/b", "a" * 65, "a\n", "ä"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ManifestError):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "0", "a.b_c-d", "a" * 64])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("value", [-1, 2**53, True, 1.0, "1", None])
def test_bad_integers(value: object) -> None:
    with pytest.raises(ManifestError):
        check_integer(value, where="n")
