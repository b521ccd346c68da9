"""A session that stays open between the answers of one conversation.

A turn sends what the cloud does not have; what it has and the turn has not is taken back. A
text that begins otherwise gets a new session, as every answer does that keeps none. The noise
of a kept conversation is one for all turns: rows that are sent again are sent as before, and
nothing averages out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triparty.common.replies import SessionRecord
from triparty.common.shielding import Shield

if TYPE_CHECKING:
    from triparty.device.inference.conversation import LastStep


@dataclass(eq=False)
class Kept:
    """What a conversation leaves for its next turn.

    Attributes:
        key: version and epoch of the bundle whose rows were sent.
        session: on the cloud, if one is open.
        last: the session's last step.
        sent: token ids that it has.
        shield: what becomes of rows, in all turns.
    """

    key: tuple[int, int] | None = None
    session: SessionRecord | None = None
    last: LastStep | None = None
    sent: list[int] = field(default_factory=list)
    shield: Shield | None = None
