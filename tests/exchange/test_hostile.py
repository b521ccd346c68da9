"""A hostile device with a good token, against a cloud process of its own: it gets typed errors.

The cloud's memory stays flat, it never fails (500), and the tokens of another device that asks
all the while are those of an undisturbed one.
"""

from __future__ import annotations

import random
import re
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from three_parties import Parties

from triparty.common.access import Access
from triparty.common.errors import (
    CloudError,
    NotFoundError,
    PositionError,
    TripartyError,
)
from triparty.common.transport import CloudClient
from triparty.common.wire import Frame, encode_frames
from triparty.device import Device

PROMPT = "Once upon a time"
TOKENS = 24
WIDTH = 64  # of stories260K
GROWTH_BYTES = 24 << 20
MOST_SOCKETS = 32


@pytest.fixture(scope="module")
def victim(parties: Parties) -> Device:
    return Device(parties.device("phone"))


@pytest.fixture(scope="module")
def attacker(parties: Parties) -> Access:
    parties.enroll_device("mallory")
    parties.grant("mallory")
    return Access.load(parties.device("mallory"), role="device")


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return int(kilobytes) << 10


def frame(
    *, dtype: int = 0, dims: tuple[int, ...] = (1, WIDTH), length: int | None = None
) -> bytes:
    """The bytes of a frame whose header may lie."""
    header = struct.pack("<4sBBBB", b"TPF1", 1, dtype, len(dims), 0)
    payload = bytes(4 * WIDTH)
    stated = len(payload) if length is None else length
    return header + struct.pack(f"<{len(dims)}I", *dims) + struct.pack("<Q", stated) + payload


def rows(value: float = 0.5, count: int = 1) -> bytes:
    return encode_frames(Frame.of(np.full((count, WIDTH), value, np.float32)))


@dataclass
class Mallory:
    """Asks for everything that is not hers or is not anything.

    Attributes:
        access: a good token.
        foreign: session ids of somebody else.
        answers: errors that she got, by name.
    """

    access: Access
    foreign: list[str]
    random: random.Random
    answers: Counter[str] = field(default_factory=Counter)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Mallory:
        self._client: CloudClient = self._stack.enter_context(self.access.client())
        self._session = ""
        self._sockets: list[socket.socket] = []
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            each.close()
        self._stack.close()

    def asks(self) -> None:
        """One hostile request, drawn at random."""
        kinds: list[Callable[[], Any]] = [
            lambda: self._step(self.random.randbytes(self.random.randrange(400))),
            lambda: self._step(frame(dims=(1 << 24, 1 << 16), length=1 << 42)),  # 2^40 values
            lambda: self._step(frame(dims=(0xFFFFFFFF, 0xFFFFFFFF), length=(1 << 64) - 1)),
            lambda: self._step(frame(dtype=self.random.choice((1, 2, 4, 9, 255)))),
            lambda: self._step(frame(dims=(1, WIDTH, 1, 1))),
            lambda: self._step(rows(self.random.choice((np.nan, np.inf, -np.inf)))),
            lambda: self._step(rows(1e38, count=3)),  # finite, and beyond what a model can add
            lambda: self._step(rows(), position=self.random.randrange(1, 10**9)),
            lambda: self._step(rows(), reply=self.random.choice(("topk=999999", "x", ""))),
            lambda: self._step(rows(), session=self._foreign()),
            lambda: self._of_session("rollback", self._foreign(), {"position": 0}),
            lambda: self._of_session("fork", self._foreign(), {}),
            lambda: self._delete(self._foreign()),
            lambda: self._client.forward(
                "stories",
                {"rows": Frame.of(np.ones((1, 1, WIDTH), np.float32))},
                session=self._foreign(),
                request_id="r",
            ),
            lambda: self._of_session("rollback", self._mine(), {"position": 1 << 40}),
            lambda: self._of_session("rollback", self._mine(), {"position": [["x"] * 9] * 9}),
            lambda: self._client.open_session(
                "capp", version=self.random.randrange(1, 1 << 50)
            ),
            self._opens_without_end,
            self._stops_reading,
            self._leaves_in_the_middle,
        ]
        try:
            self.random.choice(kinds)()
        except CloudError:
            raise  # the cloud failed: that is what must not happen
        except TripartyError as error:
            self.answers[type(error).__name__] += 1
        except OSError:
            self.answers["cut"] += 1
        else:
            self.answers["answered"] += 1

    def _foreign(self) -> str:
        return self.random.choice(self.foreign)

    def _mine(self) -> str:
        if not self._session:
            self._session = self._client.open_session("stories").id
        return self._session

    def _step(
        self, body: bytes, *, session: str = "", position: int = 0, reply: str = "logits"
    ) -> None:
        named = session or self._mine()
        headers = {
            "Content-Type": "application/vnd.triparty.frame",
            "Triparty-Position": str(position),
            "Triparty-Request-Id": f"{self.random.getrandbits(64):x}",
            "Triparty-Reply": reply,
        }
        path = f"/v1/sessions/{named}/step"
        try:
            self._client.connection.request(
                "POST", path, content=body, headers=headers, accept=(200,)
            )
        except (NotFoundError, PositionError):
            self._session = self._session if session else ""
            raise
        self._session = ""  # it moved on: the next request begins anew

    def _of_session(self, verb: str, session: str, body: dict[str, Any]) -> None:
        path = f"/v1/sessions/{session}/{verb}"
        self._client.connection.request("POST", path, body=body, accept=(200, 201))

    def _delete(self, session: str) -> None:
        self._client.connection.request("DELETE", f"/v1/sessions/{session}", accept=(204,))

    def _opens_without_end(self) -> None:
        for _ in range(40):  # 16 are hers; the oldest ones stay
            path = "/v1/models/stories/sessions"
            self._client.connection.request("POST", path, body={}, accept=(201,))

    def _raw(self) -> socket.socket:
        """A TLS connection; of many, the oldest is closed."""
        parts = urlsplit(self.access.url)
        trust = ssl.create_default_context(cadata=self.access.certificate_pem)
        trust.check_hostname = False
        plain = socket.create_connection((parts.hostname, parts.port), timeout=20)
        made = trust.wrap_socket(plain)
        self._sockets.append(made)
        if len(self._sockets) > MOST_SOCKETS:
            self._sockets.pop(0).close()
        return made

    def _head(self, session: str, position: int, length: int) -> bytes:
        return (
            f"POST /v1/sessions/{session}/step HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {self.access.token}\r\nContent-Length: {length}\r\n"
            "Content-Type: application/vnd.triparty.frame\r\n"
            f"Triparty-Position: {position}\r\nTriparty-Request-Id: r{position}\r\n"
            "Triparty-Reply: logits\r\n\r\n"
        ).encode()

    def _stops_reading(self) -> None:
        """Many requests on one connection, of whose answers nothing is taken."""
        session, body, raw = self._mine(), rows(), self._raw()
        self._session = ""
        raw.settimeout(1)
        with suppress(TimeoutError):
            for position in range(60):
                raw.sendall(self._head(session, position, len(body)) + body)

    def _leaves_in_the_middle(self) -> None:
        raw = self._raw()
        raw.sendall(self._head(self._mine(), 0, 1 << 14) + rows()[:100])
        if self.random.random() < 0.5:
            raw.close()


def disturbed(
    parties: Parties, victim: Device, attacker: Access, *, requests: int, seed: int
) -> tuple[Counter[str], int]:
    """What the attacker was answered, and by how much the cloud grew in the second half."""
    expected = victim.generate("stories", PROMPT, max_tokens=TOKENS).token_ids
    real, seen = CloudClient.open_session, ["A" * 43]

    def remembering(client: CloudClient, model: str, **options: Any) -> Any:
        session = real(client, model, **options)
        seen.append(session.id)
        return session

    def answered(mallory: Mallory, count: int) -> None:
        """The victim's tokens come one by one, with hostile requests between them."""
        left = count
        while left > 0:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(CloudClient, "open_session", remembering)
                talk = victim.stream("stories", PROMPT, max_tokens=TOKENS)
                said = [next(talk).token_id]
            mallory.foreign = seen[-3:]
            for piece in talk:
                for _ in range(min(left, max(1, count // (8 * TOKENS)))):
                    mallory.asks()
                    left -= 1
                said += [piece.token_id] if hasattr(piece, "token_id") else []
            assert tuple(said) == expected

    with Mallory(attacker, seen[-1:], random.Random(seed)) as mallory:
        answered(mallory, requests // 2)
        before = resident_bytes(parties.cloud.pid)
        answered(mallory, requests - requests // 2)
        grown = resident_bytes(parties.cloud.pid) - before
        answers = mallory.answers
    assert victim.generate("stories", PROMPT, max_tokens=TOKENS).token_ids == expected
    return answers, grown


def check(answers: Counter[str], *, requests: int) -> None:
    """Each way of asking was met by its own kind of refusal."""
    assert sum(answers.values()) == requests
    for name in ("FrameError", "RequestError", "NotFoundError", "PositionError", "LimitError"):
        assert answers[name], (name, answers)


def test_hostile_requests_harm_nobody(
    parties: Parties, victim: Device, attacker: Access
) -> None:
    answers, grown = disturbed(parties, victim, attacker, requests=240, seed=3)
    check(answers, requests=240)
    assert grown < GROWTH_BYTES, grown


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_hostile_hour(parties: Parties, victim: Device, attacker: Access) -> None:
    """Three a second for an hour, as fast as they are answered."""
    answers, grown = disturbed(parties, victim, attacker, requests=10_000, seed=4)
    check(answers, requests=10_000)
    assert grown < GROWTH_BYTES, grown
