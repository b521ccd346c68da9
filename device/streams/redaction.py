"""Takes credentials out of text before anybody sees it.

FFmpeg repeats the whole address of a camera in its messages, so a message is scrubbed by two
rules: whatever looks like an address with credentials, and the very secrets of this address,
wherever and however encoded they appear.
"""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
SHORTEST_WORD = 4
"""Shorter passwords are hidden in addresses alone: as words they are part of any text."""

# FFmpeg takes the last '@' before the first '/', '?' or '#' (`av_url_split`); people forget to
# encode what is in a password, so '@' and ':' may be inside.
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<who>[^\s/?#]*)@")
_PARAMETER = re.compile(
    r"(?P<name>[?&;](?:[\w.-]*(?:pass|pwd|token|secret|key|auth|sig|user|usr|login)[\w.-]*)=)"
    r"[^&;\s'\"#]+",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(r"(?P<name>\b(?:Basic|Bearer|Digest)\s+)[\w+/=.,~-]{4,}")
_ANY_CREDENTIALS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://(?P<who>.*)@")


def redacted(text: str) -> str:
    """Text without the credentials of addresses in it: `rtsp://user:***@host/path`."""
    text = _CREDENTIALS.sub(_without_password, text)
    text = _PARAMETER.sub(rf"\g<name>{HIDDEN}", text)
    return _AUTHORIZATION.sub(rf"\g<name>{HIDDEN}", text)


def secrets_of(url: str) -> tuple[str, ...]:
    """What must not be shown of an address, in all its encodings, longest first.

    A password with a '/' that nobody encoded ends the host for every parser; here it counts to
    the last '@' of the address.
    """
    words = {value for _, value in _parameters(url)}
    for pattern in (_CREDENTIALS, _ANY_CREDENTIALS):
        if (match := pattern.search(url)) is not None:
            user, colon, password = match["who"].partition(":")
            words.add(password if colon else user)
    plain = {form for word in words for form in (word, unquote(word))}
    forms = {form for word in plain for form in (word, quote(word, safe=""), quote_plus(word))}
    return tuple(
        sorted((f for f in forms if len(f) >= SHORTEST_WORD), key=lambda f: (-len(f), f))
    )


def scrubbed(text: str, secrets: tuple[str, ...]) -> str:
    """Text without the given words and without the credentials of any address."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return redacted(text)


def _without_password(match: re.Match[str]) -> str:
    user, colon, _ = match["who"].partition(":")
    return f"{match['scheme']}{f'{user}:{HIDDEN}' if colon else HIDDEN}@"


def _parameters(url: str) -> list[tuple[str, str]]:
    found = [match[0] for match in _PARAMETER.finditer(url)]
    return [(name, value) for name, _, value in (each.partition("=") for each in found)]
