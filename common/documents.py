"""Canonical JSON documents: one meaning, one byte sequence.

Manifests, delegations, latest statements and invites are JSON objects (RFC 8259) with sorted
members, no spaces, UTF-8 without needless escapes, and integers as the only numbers. The
reader is strict: anything that it would not have written itself is refused, so that two
implementations cannot read two meanings from one signed document.

Law: `canonical(parse(payload)) == payload`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from triparty.common.errors import FormatVersionError, ManifestError, SizeError

FORMAT_VERSION = 1
MAX_DOCUMENT_BYTES = 4 << 20
MAX_FILE_BYTES = 1 << 20
_FRACTION_DIGITS = 40
MAX_INTEGER = 2**53 - 1  # every JSON reader holds these exactly (RFC 8259, section 6)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def canonical(value: object) -> bytes:
    """The one byte sequence of a JSON value.

    Raises:
        ManifestError: text that UTF-8 cannot carry, or a number that is no integer.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode()
    except ValueError as error:
        raise ManifestError(f"no canonical JSON for this value: {error}") from error


def parse(payload: bytes) -> object:
    """The JSON value of canonical bytes.

    Raises:
        ManifestError: not JSON, not canonical, a duplicate key, or a fraction.
        SizeError: more than `MAX_DOCUMENT_BYTES`.
    """
    if len(payload) > MAX_DOCUMENT_BYTES:
        raise SizeError(f"the document has {len(payload)} bytes, limit {MAX_DOCUMENT_BYTES}")
    try:
        value: object = json.loads(
            payload.decode(),
            object_pairs_hook=_unique_members,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the document is not JSON: {error}") from error
    if canonical(value) != payload:
        raise ManifestError(
            "the document is not canonical JSON (sorted members, no spaces, plain UTF-8)"
        )
    return value


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ManifestError("the document has a duplicate key")
    return members


def _refuse_number(text: str) -> NoReturn:
    raise ManifestError(f"expected integers alone, got {text:.40}")


class Members:
    """The members of one JSON object, each read with its type.

    Every method raises `ManifestError` that names the member.
    """

    def __init__(
        self, value: object, *, where: str, names: Iterable[str], optional: Iterable[str] = ()
    ) -> None:
        """Takes an object that has the members `names`, perhaps `optional` ones, no others."""
        expected = set(names)
        if not isinstance(value, dict):
            raise ManifestError(f"{where}: expected an object, got {type(value).__name__}")
        if missing := expected - value.keys():
            raise ManifestError(f"{where}: member {min(missing)!r} is missing")
        if unknown := value.keys() - expected - set(optional):
            raise ManifestError(f"{where}: unknown member {min(unknown)!r:.80}")
        self._value: dict[str, object] = value
        self._where = where

    def text(self, name: str) -> str:
        """A text member."""
        value = self._value[name]
        if not isinstance(value, str):
            self._refuse(name, "text")
        return value

    def optional_text(self, name: str) -> str | None:
        """A text or null member."""
        return None if self._value[name] is None else self.text(name)

    def is_true(self, name: str) -> bool:
        """Whether an optional member is there; where it is, it is true."""
        if name in self._value and self._value[name] is not True:
            self._refuse(name, "true, or left out")
        return name in self._value

    def has(self, name: str) -> bool:
        """Whether an optional member is there."""
        return name in self._value

    def integer(self, name: str, *, minimum: int = 0) -> int:
        """An integer member, at most `MAX_INTEGER`."""
        return check_integer(
            self._value[name], where=f"{self._where}: {name!r}", minimum=minimum
        )

    def fraction(self, name: str) -> float:
        """A number that is no integer, as decimal text: documents hold integers alone."""
        text = self.text(name)
        try:
            value = float(text) if len(text) <= _FRACTION_DIGITS else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or repr(value) != text:
            self._refuse(name, "a decimal number")
        return value

    def time(self, name: str) -> datetime:
        """A time member."""
        return parse_time(self.text(name), where=f"{self._where}: {name!r}")

    def items(self, name: str) -> list[object]:
        """A list member."""
        value = self._value[name]
        if not isinstance(value, list):
            self._refuse(name, "a list")
        return value

    def mapping(self, name: str) -> dict[str, object]:
        """An object member whose keys are data."""
        value = self._value[name]
        if not isinstance(value, dict):
            self._refuse(name, "an object")
        return value

    def _refuse(self, name: str, expected: str) -> NoReturn:
        got = type(self._value[name]).__name__
        raise ManifestError(f"{self._where}: {name!r} must be {expected}, got {got}")


def write_document(kind: str, members: Mapping[str, object]) -> bytes:
    """The bytes of a document of this type and the current format version."""
    return canonical({**members, "type": kind, "format_version": FORMAT_VERSION})


def read_document(
    payload: bytes, kind: str, names: Iterable[str], *, optional: Iterable[str] = ()
) -> Members:
    """The members of a document, after its type and format version are checked.

    Args:
        payload: its bytes.
        kind: its type.
        names: the members that it has.
        optional: those that it may have.

    Raises:
        ManifestError: not canonical JSON, another type, missing or unknown members.
        FormatVersionError: made by a newer triparty.
        SizeError: more than `MAX_DOCUMENT_BYTES`.
    """
    value = parse(payload)
    if not isinstance(value, dict) or value.get("type") != kind:
        raise ManifestError(f"expected a document of type {kind!r}")
    version = check_integer(
        value.get("format_version"), where=f"{kind}: 'format_version'", minimum=1
    )
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{kind} has format version {version}, this triparty reads {FORMAT_VERSION}: "
            "update triparty"
        )
    common = ("type", "format_version")
    return Members(value, where=kind, names={*names, *common}, optional=optional)


def read_document_file(path: Path, kind: str, names: Iterable[str]) -> Members:
    """The members of a document in a small file, as `read_document` reads them.

    Args:
        path: of at most `MAX_FILE_BYTES`; no more is read.
        kind: its type.
        names: the members that it has.

    Raises:
        ManifestError: it cannot be read, is too large, or is another document.
        FormatVersionError: made by a newer triparty.
    """
    try:
        with path.open("rb") as stream:
            payload = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    if len(payload) > MAX_FILE_BYTES:
        raise ManifestError(f"{path} has more than {MAX_FILE_BYTES} bytes")
    return read_document(payload, kind, names)


def whole_seconds(time: datetime) -> datetime:
    """The time in UTC without fractions, as documents carry it.

    Raises:
        ManifestError: a time without a zone.
    """
    if time.tzinfo is None:
        raise ManifestError("expected a time with a zone, got one without")
    return time.astimezone(UTC).replace(microsecond=0)


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with whole seconds: `2026-01-02T03:04:05Z`."""
    return whole_seconds(time).isoformat().replace("+00:00", "Z")


def parse_time(text: str, *, where: str = "time") -> datetime:
    """The time of such a text.

    Raises:
        ManifestError: another form, or no such day.
    """
    if _TIME.fullmatch(text):
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            time = None
        if time is not None and format_time(time) == text:
            return time
    raise ManifestError(f"{where}: expected a time like 2026-01-02T03:04:05Z, got {text!r:.40}")


def check_name(text: str, *, what: str = "name") -> str:
    """The text, if it is a name: 1 to 64 of a-z, 0-9, `.`, `_`, `-`, no sign first.

    Raises:
        ManifestError: it is not.
    """
    if not _NAME.fullmatch(text):
        raise ManifestError(
            f"{what}: expected 1 to 64 of a-z, 0-9, '.', '_', '-', got {text!r:.80}"
        )
    return text


def check_digest(text: str, *, what: str = "sha256") -> str:
    """The text, if it is a SHA-256 in lower-case hex.

    Raises:
        ManifestError: it is not.
    """
    if not _DIGEST.fullmatch(text):
        raise ManifestError(f"{what}: expected 64 lower-case hex digits, got {text!r:.80}")
    return text


def check_integer(value: object, *, where: str, minimum: int = 0) -> int:
    """The value, if it is an integer from `minimum` to `MAX_INTEGER`.

    Raises:
        ManifestError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ManifestError(f"{where}: expected an integer, got {type(value).__name__}")
    if not minimum <= value <= MAX_INTEGER:
        raise ManifestError(f"{where}: expected {minimum} to {MAX_INTEGER}, got {value}")
    return value
