"""Citations with the addresses of what they cite."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ARXIV = r"(?:arXiv[: ]?)?\b(?P<arxiv>\d{4}\.\d{5})\b"
_EPRINT = r"ePrint (?P<eprint>\d{4}/\d+)"
_DOI = r"doi:(?P<doi>10\.\d{4,}/[^\s,;]+)"
_KNOWN = re.compile("|".join((_ARXIV, _EPRINT, _DOI)))
_SITES = {
    "arxiv": "https://arxiv.org/abs/",
    "eprint": "https://eprint.iacr.org/",
    "doi": "https://doi.org/",
}


def pieces(citation: str) -> Iterator[tuple[str, str | None]]:
    """The text in pieces, each with its address or None; together they are the text."""
    end = 0
    for found in _KNOWN.finditer(citation):
        if found.start() > end:
            yield citation[end : found.start()], None
        kind = str(found.lastgroup)
        yield found[0], _SITES[kind] + found[kind]
        end = found.end()
    if end < len(citation):
        yield citation[end:], None
