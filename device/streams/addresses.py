"""Where a stream comes from, and with which options FFmpeg may open it.

FFmpeg follows what it reads: a playlist on a web server may name local files, a redirect may
lead anywhere. So each scheme has a list of the protocols that may be used, and nothing else is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from triparty.common.errors import SettingsError
from triparty.device.streams.redaction import redacted, scrubbed, secrets_of

PROTOCOLS = {
    "file": "file",
    "http": "http,httpproxy,tcp,crypto",
    "https": "https,httpproxy,tls,tcp,crypto",
    "rtsp": "rtp,udp,tcp",
    "rtsps": "rtp,udp,tcp,tls",
}
"""What FFmpeg may use for an address of each scheme (`protocol_whitelist`)."""

ENCRYPTED = frozenset({"https", "rtsps"})
FIXED_OPTIONS = frozenset({"protocol_whitelist", "format_whitelist", "codec_whitelist"})
"""FFmpeg's options that are not for a configuration to change."""


@dataclass(frozen=True)
class Address:
    """The address of a stream; shown without its credentials.

    Attributes:
        url: whole, with credentials; goes to FFmpeg and nowhere else.
        scheme: a key of `PROTOCOLS`.
        secrets: what must not be shown of it.
    """

    url: str = field(repr=False)
    scheme: str
    secrets: tuple[str, ...] = field(repr=False)
    shown: str

    @classmethod
    def of(cls, text: str) -> Address:
        """Reads an address.

        Args:
            text: a path, `file:PATH`, or an URL of a scheme in `PROTOCOLS`.

        Raises:
            SettingsError: another scheme, or no host.
        """
        scheme, colon, rest = text.partition(":")
        if not (colon and rest.startswith("//")):
            path = rest if scheme == "file" else text
            if not path:
                raise SettingsError("an empty path is no stream; expected a file or an URL")
            # FFmpeg reads 'a:b' as protocol a; with this prefix it is a name of a file.
            return cls(f"file:{Path(path).expanduser()}", "file", (), path)
        scheme = scheme.lower()
        if scheme == "file":
            return cls.of(f"file:{urlsplit(text).path}")
        if scheme not in PROTOCOLS:
            raise SettingsError(
                f"the scheme of {redacted(text)} is unknown; expected a path or one of "
                f"{', '.join(PROTOCOLS)}"
            )
        if not _host(text):
            raise SettingsError(f"{redacted(text)} names no host")
        secrets = secrets_of(text)
        return cls(f"{scheme}:{rest}", scheme, secrets, scrubbed(text, secrets))

    def __str__(self) -> str:
        """Without credentials."""
        return self.shown

    @property
    def live(self) -> bool:
        """Whether an end is a disconnect, rather than the end of a file."""
        return self.scheme != "file"

    @property
    def warning(self) -> str | None:
        """What is dangerous about it, if anything."""
        if not self.live or self.scheme in ENCRYPTED or _is_loopback(_host(self.url)):
            return None
        what = "pictures" if not self.secrets else "pictures and credentials"
        return (
            f"{self} is not encrypted: whoever is on that network sees {what}, and can tell "
            f"events from the sizes of packets; use {self.scheme}s or a network of its own"
        )

    def scrub(self, text: str) -> str:
        """A message about this address, without its credentials."""
        return scrubbed(text, self.secrets)

    def options(self, *, timeout_s: float, more: Mapping[str, str]) -> dict[str, str]:
        """FFmpeg's options.

        Args:
            timeout_s: of every wait for the network.
            more: of the configuration; they win over all but `FIXED_OPTIONS`.

        Raises:
            SettingsError: `more` names a fixed option.
        """
        if fixed := sorted(FIXED_OPTIONS & set(more)):
            raise SettingsError(f"the option {fixed[0]} cannot be set: it keeps streams apart")
        options = {"protocol_whitelist": PROTOCOLS[self.scheme]}
        if self.live:
            options["timeout"] = str(int(timeout_s * 1e6))
        if self.scheme in ("rtsp", "rtsps"):
            options["rtsp_transport"] = "tcp"
        return options | dict(more)


def _host(url: str) -> str:
    authority = url.partition("://")[2].partition("/")[0].partition("?")[0].partition("#")[0]
    host = authority.rpartition("@")[2]
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
