"""`Device`: everything that a program does with its device's home.

>>> from triparty.device import Device
>>> device = Device("home/of/this/device")           # doctest: +SKIP
>>> device.enroll(code, name="phone")                # doctest: +SKIP
>>> device.pull()                                    # doctest: +SKIP
>>> print(device.generate("assistant", "Hello").text)  # doctest: +SKIP
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import NDArray

from triparty.common.access import Access
from triparty.common.connection import Connection
from triparty.common.deadline import Deadline
from triparty.common.deviceinfo import TOKENS
from triparty.common.errors import (
    RequestError,
    RetiredError,
    RollbackError,
    SettingsError,
)
from triparty.common.files import locked
from triparty.common.invites import Invite
from triparty.common.keying import Bundle
from triparty.common.sampling import SamplingOptions
from triparty.device.enroll import enroll
from triparty.device.home import HeldModel, Home, SpentDecoys
from triparty.device.inference.answer import Pieces
from triparty.device.inference.attestation import Attestation
from triparty.device.inference.batch import AT_ONCE, side_by_side
from triparty.device.inference.completions import Completions, StockEngine, text_pieces
from triparty.device.inference.conversation import Conversation
from triparty.device.inference.forwarding import Answer, Forward, text_ids
from triparty.device.inference.generation import (
    Generation,
    Parts,
    Question,
    collect,
    read_tokenizer,
    whole,
)
from triparty.device.inference.inputs import Inputs, OnShortened, warn_shortened
from triparty.device.inference.opened import OpenedModel, Prompt
from triparty.device.inference.options import GenerationOptions, OptionChanges
from triparty.device.inference.reading import (
    Classification,
    classification,
    sentence_vector,
)
from triparty.device.inference.shields import Shields, shielded_pieces
from triparty.device.inference.speculation import Speculation
from triparty.device.inference.traffic import CountedSteps, Traffic
from triparty.device.keyring import InUse, Key, Keyring
from triparty.device.pull import Pulled, pull

if TYPE_CHECKING:
    from triparty.device.inference.inputs import Input

EMBEDDING_TASKS = ("sentence-embedding", "image-text-embedding")
CLASSIFIER_TASKS = ("sequence-classification", "image-classification")


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
        self._models: dict[str, OpenedModel] = {}
        self._opening = threading.Lock()
        self._in_use = InUse()

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
        prompt: Prompt,
        *,
        options: SamplingOptions | None = None,
        engine: StockEngine | None = None,
        traffic: Traffic | None = None,
        **changes: Unpack[OptionChanges],
    ) -> Parts:
        """Yields the answer piece by piece, then whole; closing it ends the work for it.

        Args:
            model: name of a model that this device holds.
            prompt: plain text, token ids, or the messages of a conversation, which the
                model's chat template makes a text of; it never leaves the device.
            options: how tokens are chosen and where the answer ends; None is greedy.
            engine: serves a model of the interface `tokens` in place of the triparty cloud.
            traffic: is told what goes over the wire while it does; None counts it for the
                whole answer alone.
            **changes: members of the options by name, as `max_tokens=64`.

        Raises:
            StateError: no bundle of this model.
            RequestError: a model of another kind, or a prompt that it cannot answer.
            SettingsError: an engine for a model whose rows only a triparty cloud takes,
                shields for a model of the interface `tokens`, which sends no rows, an option
                that this interface does not have, or guesses beside decoys or blocks.
            RollbackError: the cloud hosts another version: pull.
            DeadlineError: the answer was not complete in time.
            TransportError: the cloud was not reached.
        """
        wanted = GenerationOptions.of(options, changes)
        opened = self.open(model)
        question = opened.question(prompt, wanted)
        traffic = Traffic() if traffic is None else traffic
        if opened.bundle.info.interface == TOKENS:
            self._shields.refuse_without_rows(model)
            _refuse_guesses(model, wanted)
            said = self._from_words(opened, question, wanted, engine, traffic)
        elif engine is None:
            said = self._from_rows(opened, question, wanted, traffic)
        else:
            raise SettingsError(
                f"'{model}' is of the interface '{opened.bundle.info.interface}', which stock "
                "engines do not serve: leave out the engine"
            )
        yield from collect(said, question=question, traffic=traffic)

    def generate(
        self,
        model: str,
        prompt: Prompt,
        *,
        options: SamplingOptions | None = None,
        engine: StockEngine | None = None,
        **changes: Unpack[OptionChanges],
    ) -> Generation:
        """The whole answer; see `stream`."""
        return whole(self.stream(model, prompt, options=options, engine=engine, **changes))

    def generate_batch(
        self,
        model: str,
        prompts: Sequence[Prompt],
        *,
        options: SamplingOptions | None = None,
        engine: StockEngine | None = None,
        at_once: int = AT_ONCE,
        **changes: Unpack[OptionChanges],
    ) -> list[Generation]:
        """The answers to several prompts, each what `generate` answers.

        Args:
            model: as in `stream`.
            prompts: as in `stream`, each; answered side by side, in one batch of the cloud.
            options: as in `stream`, for each prompt.
            engine: as in `stream`.
            at_once: most answers that are in the making together.
            **changes: as in `stream`.

        Raises:
            TripartyError: as `stream`, by the first prompt that fails; the others end.
        """
        wanted = GenerationOptions.of(options, changes)

        def answered(prompt: Prompt) -> Parts:
            return self.stream(model, prompt, options=wanted, engine=engine)

        return side_by_side([partial(answered, prompt) for prompt in prompts], at_once)

    def open(self, model: str) -> OpenedModel:
        """A language model that this device holds, opened; kept until a newer one is pulled.

        Raises:
            StateError: no bundle of this model.
            RequestError: a model of another kind: a classifier, an encoder.
            CheckpointError: its bundle is damaged.
        """
        held = self._home.model(model)
        with self._opening:
            opened = self._models.get(model)
            if opened is None or opened.held != held:
                folder = (
                    self._home.once_folder(model, held.version)
                    if held.once
                    else self._home.bundle_folder(model)
                )
                opened = OpenedModel.open(held, folder)
                self._models[model] = opened
            return opened

    def _from_rows(
        self,
        opened: OpenedModel,
        question: Question,
        wanted: GenerationOptions,
        traffic: Traffic,
    ) -> Pieces:
        deadline = Deadline(wanted.deadline_s)
        with ExitStack() as rings, self._home.access().client(deadline) as client:

            def conversation() -> Conversation:
                keyring = rings.enter_context(self._keyring(opened))
                key = keyring.key()
                return Conversation(
                    CountedSteps(client, traffic),
                    key.bundle,
                    opened.held.name,
                    version=key.version,
                    once=key.once,
                    begin=key.begin,
                    renew=keyring.next_key,
                    shield=self._shields.shield(),
                    block=self._shields.block,
                    attestation=self._attestation,
                    deadline=deadline,
                )

            return (
                yield from shielded_pieces(
                    question,
                    shields=self._shields,
                    bundle=opened.bundle,
                    tokenizer=opened.tokenizer,
                    conversation=conversation,
                    options=wanted,
                    speculation=_speculation(opened.bundle, wanted, traffic),
                    spent=SpentDecoys(self._home.folder),
                )
            )

    def _keyring(self, opened: OpenedModel) -> Keyring:
        return Keyring(self._home, self._in_use, opened.held, opened.bundle)

    def _from_words(
        self,
        opened: OpenedModel,
        question: Question,
        wanted: GenerationOptions,
        engine: StockEngine | None,
        traffic: Traffic,
    ) -> Pieces:
        if self._attestation is not None:
            self._attestation.require()
        deadline = Deadline(wanted.deadline_s)
        with (
            self._keyring(opened) as keyring,
            self._connection(engine, deadline) as connection,
        ):
            if engine is not None and opened.held.once:
                raise SettingsError(
                    f"'{opened.held.name}' has one-time instances, which a triparty cloud "
                    "gives out: leave out the engine"
                )

            def under(key: Key) -> tuple[Completions, Bundle]:
                hosted = (key.version, key.bundle.info.epoch)
                name = opened.held.name
                asked = Completions(connection, name, hosted, traffic, key.once, key.begin)
                return asked, key.bundle

            if engine is not None:
                completions = Completions(connection, engine.model, traffic=traffic)
                bundle = opened.bundle
            else:
                completions, bundle = under(keyring.key())
            return (
                yield from text_pieces(
                    question,
                    bundle=bundle,
                    tokenizer=opened.tokenizer,
                    completions=completions,
                    options=wanted,
                    renew=None if engine else lambda: under(keyring.next_key()),
                )
            )

    def embed(
        self,
        model: str,
        inputs: Sequence[Input],
        *,
        on_shortened: OnShortened = warn_shortened,
    ) -> NDArray[np.float32]:
        """Vectors (N, D) of texts, pooled and normalised as the model's owner says.

        Args:
            model: name of an encoder that this device holds.
            inputs: N plain texts, or images where the model has a space for both (files as
                `Path`); they never leave the device.
            on_shortened: told which texts were too long; their ends are left out.

        Raises:
            StateError: no bundle of this model.
            RequestError: a model of another kind, or an input that it does not take.
            SettingsError: shields that do not apply, or Pillow is missing.
            RollbackError: the cloud hosts another version: pull.
            TransportError: the cloud was not reached.
        """
        held, bundle = self._opened(model, "embed", EMBEDDING_TASKS)
        encoding = bundle.encoding()
        answers = self._answers(held, bundle, inputs, on_shortened)
        vectors = [sentence_vector(answer, encoding) for answer in answers]
        return np.stack(vectors) if vectors else np.zeros((0, bundle.info.outputs), np.float32)

    def count_tokens(self, model: str, texts: Sequence[str]) -> int:
        """How many tokens an encoder reads of texts, together.

        Raises:
            StateError: no bundle of this model.
            RequestError: a text without tokens, or a model that is no encoder.
            CheckpointError: its bundle is damaged.
        """
        _, bundle = self._opened(model, "embed", EMBEDDING_TASKS)
        made = text_ids(
            texts,
            read_tokenizer(bundle),
            bundle.encoding(),
            positions=bundle.info.max_positions,
        )
        return sum(len(text.ids) for text in made)

    def classify(
        self,
        model: str,
        inputs: Sequence[Input],
        *,
        on_shortened: OnShortened = warn_shortened,
    ) -> list[Classification]:
        """Labels with scores of texts or images, as a model takes them.

        Args:
            model: name of a classifier that this device holds.
            inputs: plain texts, or pairs of texts, for a classifier of texts; files, images of
                Pillow or pixels for one of images. They never leave the device.
            on_shortened: told which texts were too long; their ends are left out.

        Raises: as `embed`.
        """
        held, bundle = self._opened(model, "classify", CLASSIFIER_TASKS)
        labels, scores = bundle.labels(), bundle.encoding().scores
        answers = self._answers(held, bundle, inputs, on_shortened)
        return [classification(answer, labels, scores) for answer in answers]

    def _opened(self, model: str, verb: str, tasks: Sequence[str]) -> tuple[HeldModel, Bundle]:
        held = self._home.model(model)
        bundle = Bundle.open(self._home.bundle_folder(model))
        if bundle.info.task not in tasks:
            raise RequestError(
                f"'{verb}' is for models of the task {' or '.join(tasks)}; '{model}' is of "
                f"{bundle.info.task}"
            )
        return held, bundle

    def _answers(
        self,
        held: HeldModel,
        bundle: Bundle,
        given: Sequence[Input],
        on_shortened: OnShortened,
    ) -> list[Answer]:
        inputs = Inputs.prepare(given, bundle, on_shortened=on_shortened)
        self._shields.refuse_around_whole_texts(held.name, images=inputs.has_images)
        if inputs.has_texts and bundle.info.interface == TOKENS:
            self._shields.refuse_without_rows(held.name)
        with (
            Keyring(self._home, self._in_use, held, bundle) as keyring,
            self._home.access().client() as client,
        ):

            def asked(key: Key) -> list[Answer]:
                forward = Forward(
                    client,
                    key.bundle,
                    held.name,
                    version=key.version,
                    shield=self._shields.shield(),
                    attestation=self._attestation,
                )
                return inputs.answers(forward)

            try:
                return asked(keyring.key())
            except (RetiredError, RollbackError):
                return asked(keyring.next_key())

    def _connection(self, engine: StockEngine | None, deadline: Deadline) -> Connection:
        if engine is not None:
            return engine.connection(deadline)
        return self._home.access().client(deadline).connection


def _speculation(
    bundle: Bundle, options: GenerationOptions, traffic: Traffic
) -> Speculation | None:
    if not options.speculate:
        return None
    return Speculation(
        options.speculate,
        vocabulary=bundle.info.vocabulary,
        draft=options.draft,
        traffic=traffic,
    )


def _refuse_guesses(model: str, options: GenerationOptions) -> None:
    if options.speculate:
        raise SettingsError(
            f"'{model}' is of the interface 'tokens', where an answer is one round trip: leave "
            "out speculate"
        )
