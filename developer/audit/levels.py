"""The attackers, by how much they know; each knows what the lower ones know.

K0  the cloud alone: the hosted model and the rows that reach it
K1  and some known plaintext: chat templates, the begin-of-text token
K2  and the embedding table: public, or from any registered user
K3  and the public base weights of the model
K4  and a user who shares a bundle
"""

from __future__ import annotations

import re
from enum import StrEnum

from triparty.common.errors import SettingsError


class Level(StrEnum):
    """How much an attacker knows; ordered."""

    K0 = "K0"
    K1 = "K1"
    K2 = "K2"
    K3 = "K3"
    K4 = "K4"

    @classmethod
    def parse(cls, text: str) -> frozenset[Level]:
        """Levels as written on a command line: `K2`, `K0,K2`, `K0..K4` or `K0-K4`.

        Raises:
            SettingsError: something else.
        """
        chosen: set[Level] = set()
        for part in text.upper().replace(" ", "").split(","):
            span = re.fullmatch(r"(K[0-4])(?:(?:\.\.|-)(K[0-4]))?", part)
            first, last = (span[1], span[2] or span[1]) if span else ("", "")
            if not first or first > last:
                raise SettingsError(
                    f"no attacker level {part!r}: write K0 to K4, as K2, K0,K2 or K0..K4"
                )
            chosen |= {level for level in cls if first <= level <= last}
        return frozenset(chosen)
