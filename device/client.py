"""`Device`: everything that a program does with its device's home.

>>> from triparty.device import Device
>>> device = Device("home/of/this/device")           # doctest: +SKIP
>>> device.enroll(code, name="phone")                # doctest: +SKIP
>>> device.pull()                                    # doctest: +SKIP
>>> print(device.generate("assistant", "Hello").text)  # doctest: +SKIP
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from triparty.common.access import Access
from triparty.common.connection import Connection
from triparty.common.deviceinfo import TOKENS
from triparty.common.errors import CloudError, RequestError, SettingsError
from triparty.common.files import locked
from triparty.common.invites import Invite
from triparty.common.keying import Bundle
from triparty.common.sampling import SamplingOptions
from triparty.device.enroll import enroll
from triparty.device.home import HeldModel, Home, SpentDecoys
from triparty.device.inference.attestation import Attestation
from triparty.device.inference.completions import Completions, StockEngine, text_pieces
from triparty.device.inference.conversation import Conversation
from triparty.device.inference.generation import (
    Generation,
    Piece,
    Pieces,
    collect,
    read_tokenizer,
)
from triparty.device.inference.shields import Shields, shielded_pieces
from triparty.device.pull import Pulled, pull

MAX_TOKENS = 128


@dataclass(frozen=True)
class _Wanted:
    """The arguments of one answer."""

    prompt: str
    options: SamplingOptions
    max_tokens: int
    ignore_eos: bool


class Device:
    """One device: its keys, its bundles, its way to the cloud.

    Args:
        home: the device's folder.
        passphrase: of its private keys, if they have one.
        shields: what its requests are shielded with, beside the keys; None: nothing.
        attestation: what the cloud has to prove before rows are sent to it; None: nothing.
    """

    def __init__(
        self,
        home: Path | str,
        *,
        passphrase: str | None = None,
        shields: Shields | None = None,
        attestation: Attestation | None = None,
    ) -> None:
        """Touches nothing yet."""
        self._home = Home(Path(home), passphrase=passphrase)
        self._shields = shields or Shields()
        self._attestation = attestation

    def enroll(
        self,
        code: str,
        *,
        cloud: str | None = None,
        name: str | None = None,
        again: bool = False,
    ) -> Access:
        """Turns a developer's invite into this device's account.

        Args:
            code: the invite.
            cloud: the cloud that the user expects; None takes the invite's word.
            name: label that developer and cloud see; None takes the host's name.
            again: this home is enrolled, and its token expired or is lost.

        Raises:
            SettingsError: the invite is for a developer, or another cloud than `cloud`.
            StateError: this home is enrolled already, or with `again` is not.
            InviteError: unknown, used or expired.
            SignerError: the cloud shows another developer than the invite names.
            TransportError: the invite's cloud was not reached, or somebody else answered.
        """
        invite = Invite.from_code(code)
        return enroll(
            self._home,
            invite,
            cloud=cloud or invite.url,
            name=name or platform.node()[:64] or "device",
            now=datetime.now(UTC),
            again=again,
        )

    def pull(self, name: str | None = None) -> Pulled:
        """Brings the model or gate of a name up to date, or all granted and published ones.

        Raises:
            ArtifactError: what the cloud offers must not be used; nothing changed.
            NotFoundError: nothing was granted.
        """
        self._home.access()
        with locked(self._home.folder):
            return pull(self._home, name=name, now=datetime.now(UTC))

    def models(self) -> list[HeldModel]:
        """The models that this device can use.

        Raises:
            StateError: not enrolled, or a record is damaged.
        """
        self._home.access()
        return self._home.held()

    def rotate_token(self) -> str:
        """Replaces this device's token; returns when the new one ends."""
        access = self._home.access()
        with access.client() as client:
            token, expires = client.rotate_token()
        access.with_token(token, expires).save(self._home.folder)
        return expires

    def stream(
        self,
        model: str,
        prompt: str,
        *,
        max_tokens: int = MAX_TOKENS,
        options: SamplingOptions | None = None,
        ignore_eos: bool = False,
        engine: StockEngine | None = None,
    ) -> Iterator[Piece | Generation]:
        """Yields the answer piece by piece, then whole; closing it ends the work for it.

        Args:
            model: name of a model that this device holds.
            prompt: plain text; it never leaves the device.
            max_tokens: most tokens to generate.
            options: how tokens are chosen; None is greedy.
            ignore_eos: go on after an end token, for measurements.
            engine: serves a model of the interface `tokens` in place of the triparty cloud.

        Raises:
            StateError: no bundle of this model.
            RequestError: a model of another kind: a classifier, an encoder.
            SettingsError: an engine for a model whose rows only a triparty cloud takes, or
                shields for a model of the interface `tokens`, which sends no rows.
            RollbackError: the cloud hosts another version: pull.
            TransportError: the cloud was not reached.
        """
        held = self._home.model(model)
        bundle = Bundle.open(self._home.bundle_folder(model))
        if bundle.info.task != "causal-lm":
            raise RequestError(
                f"'{model}' writes no text that goes on from a prompt: its task is "
                f"{bundle.info.task}"
            )
        wanted = _Wanted(prompt, options or SamplingOptions(), max_tokens, ignore_eos)
        if bundle.info.interface == TOKENS:
            self._shields.refuse_without_rows(model)
            yield from collect(self._from_words(held, bundle, wanted, engine))
        elif engine is None:
            yield from collect(self._from_rows(held, bundle, wanted))
        else:
            raise SettingsError(
                f"'{model}' is of the interface '{bundle.info.interface}', which stock engines "
                "do not serve: leave out the engine"
            )

    def _from_rows(self, held: HeldModel, bundle: Bundle, wanted: _Wanted) -> Pieces:
        with self._home.access().client() as client:

            def conversation() -> Conversation:
                return Conversation(
                    client,
                    bundle,
                    held.name,
                    version=held.version,
                    shield=self._shields.shield(),
                    block=self._shields.block,
                    attestation=self._attestation,
                )

            return (
                yield from shielded_pieces(
                    wanted.prompt,
                    shields=self._shields,
                    bundle=bundle,
                    tokenizer=read_tokenizer(bundle),
                    conversation=conversation,
                    options=wanted.options,
                    max_tokens=wanted.max_tokens,
                    ignore_eos=wanted.ignore_eos,
                    spent=SpentDecoys(self._home.folder),
                )
            )

    def _from_words(
        self, held: HeldModel, bundle: Bundle, wanted: _Wanted, engine: StockEngine | None
    ) -> Pieces:
        if self._attestation is not None:
            self._attestation.require()
        with self._connection(engine) as connection:
            completions = (
                Completions(connection, engine.model)
                if engine
                else Completions(connection, held.name, (held.version, bundle.info.epoch))
            )
            return (
                yield from text_pieces(
                    wanted.prompt,
                    bundle=bundle,
                    tokenizer=read_tokenizer(bundle),
                    completions=completions,
                    options=wanted.options,
                    max_tokens=wanted.max_tokens,
                    ignore_eos=wanted.ignore_eos,
                )
            )

    def _connection(self, engine: StockEngine | None) -> Connection:
        return engine.connection() if engine else self._home.access().client().connection

    def generate(
        self,
        model: str,
        prompt: str,
        *,
        max_tokens: int = MAX_TOKENS,
        options: SamplingOptions | None = None,
        ignore_eos: bool = False,
        engine: StockEngine | None = None,
    ) -> Generation:
        """The whole answer; see `stream`."""
        parts = self.stream(
            model,
            prompt,
            max_tokens=max_tokens,
            options=options,
            ignore_eos=ignore_eos,
            engine=engine,
        )
        for part in parts:
            if isinstance(part, Generation):
                return part
        raise CloudError("the answer ended without an end")
