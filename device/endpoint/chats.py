"""Chats of the endpoint's clients whose sessions stay open between two requests.

Clients of OpenAI's API send a chat from its beginning in every request. Its rows are on the
cloud already if a session was kept whose tokens the new request begins with: then only what
is new is sent. What a session has and the request has not is taken back, so that an answer is
the one that a new session would give, whatever was kept.

Sessions are never shared between clients: from how fast an answer comes, one could tell what
another has asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from triparty.device.inference.generation import Generation, Parts
from triparty.device.inference.kept import Kept


@dataclass(eq=False)
class Chat:
    """A kept session.

    Attributes:
        client: whose.
        model: that it is of.
        kept: what its last answer left.
    """

    client: str
    model: str
    kept: Kept = field(default_factory=Kept)


class KeptChats:
    """The chats that are kept; any thread may use them.

    Args:
        most: how many; those that were used longest ago end first. 0 keeps none.
        end: ends the session of a model on the cloud.
    """

    def __init__(self, most: int, *, end: Callable[[str, Kept], None]) -> None:
        """Keeps none yet."""
        self._most, self._end = most, end
        self._lock = threading.Lock()
        self._free: list[Chat] = []  # used longest ago first

    def answered(
        self,
        client: str,
        model: str,
        ids: Sequence[int],
        parts: Callable[[Kept | None], Parts],
    ) -> Parts:
        """Yields an answer; its session is kept for the next one of the same chat.

        Args:
            client: who asks.
            model: that is asked.
            ids: of the whole chat so far.
            parts: begins the answer, on a kept session.
        """
        if not self._most:
            yield from parts(None)
            return
        chat = self._take(client, model, ids)
        is_done = False
        try:
            with closing(parts(chat.kept)) as answer:
                for part in answer:
                    if isinstance(part, Generation):  # before it is told, and the next asked
                        self._give_back(chat)
                        is_done = True
                    yield part
        except Exception:
            if not is_done:
                self._end(model, chat.kept)
            raise
        except GeneratorExit:  # nobody reads the answer any more: what was sent still counts
            if not is_done:
                self._give_back(chat)
            raise

    def close(self) -> None:
        """Ends all sessions that are kept and in nobody's hands."""
        with self._lock:
            free, self._free = self._free, []
            self._most = 0
        self._end_all(free)

    def _take(self, client: str, model: str, ids: Sequence[int]) -> Chat:
        """The free chat that goes on with these tokens, or a new one."""
        with self._lock:
            mine = [one for one in self._free if (one.client, one.model) == (client, model)]
            best = max(mine, key=lambda one: shared(one.kept.sent, ids), default=None)
            if best is None or not _is_same(best.kept.sent, ids):
                return Chat(client, model)
            self._free.remove(best)
            return best

    def _give_back(self, chat: Chat) -> None:
        with self._lock:
            if chat.kept.session is not None:
                self._free.append(chat)
            surplus = max(0, len(self._free) - self._most)
            ended, self._free = self._free[:surplus], self._free[surplus:]
        self._end_all(ended)

    def _end_all(self, chats: Sequence[Chat]) -> None:
        for chat in chats:
            self._end(chat.model, chat.kept)


def _is_same(held: Sequence[int], ids: Sequence[int]) -> bool:
    """Whether two texts are one chat, and not two with one beginning that both may go on."""
    return 2 * shared(held, ids) > min(len(held), len(ids))


def shared(held: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens two texts have in common from their beginning."""
    pairs = enumerate(zip(held, ids, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(held), len(ids)))
