"""Webhooks: each event posted as signed JSON, at least once.

An event is put into the outbox in the transaction that writes it, and leaves it when the other
side has answered 2xx; so after a crash it is sent again, and the receiver tells repetitions by
`X-Triparty-Delivery`. Whoever has the key tells by the signature that a message is from here:
HMAC-SHA256 over the timestamp, a dot and the body.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from triparty.common.errors import ForbiddenError, SettingsError, TripartyError
from triparty.device.events.database import reason
from triparty.device.events.destinations import choose_address, is_allowed
from triparty.device.events.event import Event
from triparty.device.events.outbox import Letter, Outbox
from triparty.device.events.outlet import OutletStatus, Site

BATCH: Final = 20
POLL_S: Final = 5.0
RETRY_S: Final = 2.0
RETRY_LONGEST_S: Final = 3600.0
EXPIRE_S: Final = 60.0
STOP_S: Final = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hook:
    """Where events are posted, and which.

    Attributes:
        name: unique.
        url: http or https; http only to allowed addresses.
        secret: key of the signature.
        ca_file: certificates to trust; None for the public ones.
        allow: networks of private addresses that it may be at.
        cameras: of these alone; empty for all.
        tasks: of these alone; empty for all.
        kinds: of these alone; empty for all.
        timeout_s: of each try.
        give_up_s: when an event is not tried any more.
        most_waiting: events that may wait.
    """

    name: str
    url: str = field(repr=False)
    secret: str = field(repr=False)
    ca_file: Path | None = None
    allow: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    timeout_s: float = 10.0
    give_up_s: float = 259_200.0
    most_waiting: int = 10_000

    def body(self, event: Event) -> str | None:
        """What is posted of an event; None if this one is not wanted."""
        for one, wanted in (
            (event.camera, self.cameras),
            (event.task, self.tasks),
            (event.kind, self.kinds),
        ):
            if wanted and one not in wanted:
                return None
        when = datetime.fromtimestamp(event.wall, UTC).isoformat(timespec="milliseconds")
        return json.dumps({**asdict(event), "time": when})


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """The value of `X-Triparty-Signature`."""
    message = timestamp.encode() + b"." + body
    return f"sha256={hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()}"


class Refused(Exception):  # noqa: N818  not an error of ours
    """The other side did not take a message.

    Attributes:
        wait_s: how long it asks to be left alone; None if it does not say.
    """

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        """Says why."""
        super().__init__(why)
        self.wait_s = wait_s


class Webhook:
    """Delivers what is in the outbox, in a thread of its own.

    Args:
        hook: where to.
        engine: of the database with the outbox.
        clock: seconds since 1970.

    Raises:
        SettingsError: certificates that cannot be read.
    """

    def __init__(
        self, hook: Hook, engine: Engine, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Starts the thread."""
        self._hook, self._outbox, self._clock = hook, Outbox(engine, hook.name), clock
        self._status = OutletStatus(hook.name, "webhook", well=True)
        self._woken, self._stopping = threading.Event(), threading.Event()
        self._expired = float("-inf")
        self._client = httpx.Client(
            verify=_trusted(hook),
            timeout=hook.timeout_s,
            trust_env=False,  # a proxy would resolve the name anew
            follow_redirects=False,
        )
        self._thread = threading.Thread(
            target=self._run, name=f"webhook {hook.name}", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """There may be something to deliver."""
        self._woken.set()

    def hear_site(self, site: Site) -> None:
        """Nothing to tell: events name what they are of."""

    def write(self, documents: Sequence[Mapping[str, Any]], now: float) -> None:
        """Nothing to take: events come through the outbox."""

    def status(self) -> OutletStatus:
        """How it stands."""
        return self._status

    def close(self) -> None:
        """Ends the thread; what is not delivered stays in the outbox."""
        self._stopping.set()
        self._woken.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        with self._client:
            while not self._stopping.is_set():
                self._woken.clear()
                wait_s = self._guarded()
                if not self._stopping.is_set():
                    self._rest(wait_s)

    def _rest(self, wait_s: float | None) -> None:
        """Waits to be woken; after a failure for a time, whoever wakes it."""
        if wait_s is None:
            self._woken.wait(POLL_S)
        else:
            self._stopping.wait(wait_s)

    def _guarded(self) -> float | None:
        """Delivers; what nobody thought of must not end the thread."""
        try:
            return self._deliver()
        except Exception as error:
            log.exception("webhook %s", self._hook.name)
            self._fail(f"{type(error).__name__}: {error}")
            return POLL_S

    def _deliver(self) -> float | None:
        """Posts what is due; returns how long to leave the other side alone, if it failed."""
        try:
            self._expire()
            while letters := self._outbox.due(self._clock(), limit=BATCH):
                for letter in letters:
                    if self._stopping.is_set():
                        return None
                    if (wait_s := self._try(letter)) is not None:
                        return wait_s
            self._tell(waiting=self._outbox.waiting())
        except SQLAlchemyError as error:
            self._fail(f"the outbox: {reason(error)}")
            return POLL_S
        return None

    def _try(self, letter: Letter) -> float | None:
        """Posts one; returns how long to wait if nothing else should be tried now."""
        try:
            self._post(letter)
        except (Refused, httpx.HTTPError, TripartyError, OSError) as error:
            self._fail(str(error) or type(error).__name__)
            wait_s = _wait_s(letter.tries)
            asked = error.wait_s if isinstance(error, Refused) else None
            if asked is not None:
                wait_s = min(max(wait_s, asked), RETRY_LONGEST_S)
            self._outbox.postpone(letter, self._clock() + wait_s)
            self._tell(waiting=self._outbox.waiting())
            return min(wait_s, POLL_S)
        self._outbox.delivered(letter)
        if not self._status.well:
            self._outbox.hasten(self._clock())
        self._tell(well=True, sent=self._status.sent + 1, last_error=None)
        return None

    def _post(self, letter: Letter) -> None:
        """Posts a letter.

        Raises:
            Refused, httpx.HTTPError, TripartyError: it was not taken.
        """
        url, body = httpx.URL(self._hook.url), letter.body.encode()
        port = url.port or (443 if url.scheme == "https" else 80)
        address = choose_address(url.host, port, allow=self._hook.allow)
        if url.scheme == "http" and not is_allowed(address, self._hook.allow):
            raise ForbiddenError("http goes to allowed addresses alone: use https")
        timestamp = str(int(self._clock()))
        headers = {
            "Host": url.netloc.decode(),
            "Content-Type": "application/json",
            "User-Agent": "triparty",
            "X-Triparty-Delivery": f"{self._hook.name}-{letter.event}",
            "X-Triparty-Timestamp": timestamp,
            "X-Triparty-Signature": signature(self._hook.secret, timestamp, body),
        }
        with self._client.stream(
            "POST",
            url.copy_with(host=address),
            content=body,
            headers=headers,
            extensions={"sni_hostname": url.host},
        ) as answer:
            if not answer.is_success:
                raise Refused(f"answered {answer.status_code}", _retry_after(answer))

    def _expire(self) -> None:
        now = self._clock()
        if 0 <= now - self._expired < EXPIRE_S:
            return
        hook = self._hook
        given_up = self._outbox.expire(now - hook.give_up_s, most=hook.most_waiting)
        self._expired = now
        if given_up:
            log.error("webhook %s: %d events were given up", hook.name, given_up)
            self._tell(dropped=self._status.dropped + given_up)

    def _fail(self, why: str) -> None:
        if self._status.last_error != why:
            log.warning("webhook %s: %s", self._hook.name, why)
        self._tell(well=False, failures=self._status.failures + 1, last_error=why)

    def _tell(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)


def _wait_s(tries: int) -> float:
    """2 s, 4 s, ... up to an hour, each with half as much jitter."""
    wait_s = min(RETRY_S * 2.0 ** min(tries, 16), RETRY_LONGEST_S)
    return wait_s * random.uniform(1.0, 1.5)  # noqa: S311  no secret


def _retry_after(answer: httpx.Response) -> float | None:
    said = answer.headers.get("Retry-After", "")
    return float(said) if said.isdecimal() else None


def _trusted(hook: Hook) -> ssl.SSLContext | bool:
    if hook.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=hook.ca_file)
    except OSError as error:
        raise SettingsError(
            f"webhook '{hook.name}': ca_file {hook.ca_file}: {error}"
        ) from error
