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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import NDArray

from triparty.common.access import Access, trust_certificate
from triparty.common.connection import Connection
from triparty.common.deadline import Deadline
from triparty.common.deviceinfo import TOKENS
from triparty.common.errors import (
    RequestError,
    SettingsError,
    TripartyError,
)
from triparty.common.files import locked
from triparty.common.invites import Invite
from triparty.common.keying import Bundle
from triparty.common.sampling import SamplingOptions
from triparty.device.accounts import Accounts
from triparty.device.enroll import enroll
from triparty.device.home import HeldModel, HeldPlan, Home, SpentDecoys
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
from triparty.device.inference.images import Pixels, pixels_of
from triparty.device.inference.inputs import Inputs, OnShortened, warn_shortened
from triparty.device.inference.kept import Kept
from triparty.device.inference.opened import OpenedModel, Prompt
from triparty.device.inference.options import GenerationOptions, OptionChanges
from triparty.device.inference.pictures import Picture
from triparty.device.inference.reading import (
    Classification,
    classification,
    sentence_vector,
)
from triparty.device.inference.shields import Shields, shielded_pieces
from triparty.device.inference.speculation import Speculation
from triparty.device.inference.traffic import CountedForwards, CountedSteps, Traffic
from triparty.device.keyring import InUse, Key, Keyring
from triparty.device.keystore import Keys
from triparty.device.pull import Pulled, choose_models, pull_all

if TYPE_CHECKING:
    from triparty.device.inference.images import ImageLike
    from triparty.device.inference.inputs import Input

EMBEDDING_TASKS = ("sentence-embedding", "image-text-embedding")
CLASSIFIER_TASKS = ("sequence-classification", "image-classification")


class Device:
    """One device: its keys, its bundles, its way to the cloud.

    Args:
        home: the device's folder.
        passphrase: of its private keys, if they have one.
        keys: where they should be: in the system's keyring, in files, or wherever they are.
        shields: what its requests are shielded with, beside the keys; None: nothing.
        attestation: what the cloud has to prove before rows are sent to it; None: nothing.
    """

    def __init__(
        self,
        home: Path | str,
        *,
        passphrase: str | None = None,
        keys: Keys = Keys.AUTO,
        shields: Shields | None = None,
        attestation: Attestation | None = None,
    ) -> None:
        """Touches nothing yet."""
        self._home = Home(Path(home), passphrase=passphrase, keys=keys)
        self._accounts = Accounts(self._home)
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
        account: str | None = None,
    ) -> Access:
        """Turns a developer's invite into this device's account.

        Args:
            code: the invite.
            cloud: the cloud that the user expects; None takes the invite's word.
            name: label that developer and cloud see; None takes the host's name.
            again: this home is enrolled, and its token expired or is lost.
            account: name of a further account of this device, for another cloud or developer;
                None: the home's own.

        Raises:
            SettingsError: the invite is for a developer, or another cloud than `cloud`.
            StateError: this home is enrolled already, or with `again` is not.
            InviteError: unknown, used or expired.
            SignerError: the cloud shows another developer than the invite names.
            TransportError: the invite's cloud was not reached, or somebody else answered.
        """
        invite = Invite.from_code(code)
        return enroll(
            self._accounts.named(account),
            invite,
            cloud=cloud or invite.url,
            name=name or platform.node()[:64] or "device",
            now=datetime.now(UTC),
            again=again,
        )

    def pull(self, name: str | None = None) -> Pulled:
        """Brings the model or gate of a name up to date, or all granted and published ones.

        Args:
            name: as the developer published it, or ACCOUNT/NAME; None for all of all accounts.

        Raises:
            ArtifactError: what a cloud offers must not be used; nothing changed of it.
            NotFoundError: nothing was granted.
            StateError: not enrolled, or no such account.
        """
        account, slash, plain = (name or "").rpartition("/")
        homes = [self._accounts.named(account)] if slash else self._accounts.enrolled()
        return pull_all(homes, name=plain or None, now=datetime.now(UTC))

    def choose_models(
        self, plan: str, active: Sequence[str], *, account: str | None = None
    ) -> HeldPlan:
        """Fetches other models of a plan than it chose, and evicts those that no plan runs.

        Args:
            plan: that this device holds.
            active: models of the plan, which shall run.
            account: of this device that holds it; None: the home's own.

        Raises:
            NotFoundError: no such plan here, or no such model in it.
            ArtifactError: a model that must not be used; what was chosen before stays.
        """
        home = self._accounts.named(account)
        home.access()
        with locked(home.folder):
            return choose_models(home, plan, active, now=datetime.now(UTC))

    def models(self) -> list[HeldModel]:
        """The models that this device can use.

        Raises:
            StateError: not enrolled, or a record is damaged.
        """
        return self._accounts.models()

    def trust(self, pin: str, *, account: str | None = None) -> None:
        """Trusts the new certificate of this device's cloud from now on.

        Args:
            pin: its SHA-256 in hex, as the operator tells it outside of the cloud.
            account: of this device on that cloud; None: the home's own.

        Raises:
            StateError: not enrolled.
            CertificateError: the cloud shows another certificate.
            TripartyError: whoever shows it is not this device's cloud; nothing changed.
        """
        home = self._accounts.named(account)
        access = home.access()
        with locked(home.folder):
            seen = home.seen().delegation_version(access.developer)
            now = datetime.now(UTC)
            trust_certificate(home.folder, access, pin, seen_version=seen, now=now)

    def key_place(self, *, account: str | None = None) -> tuple[Keys, str]:
        """Where this device's keys are, and why they are not in the keyring, if so.

        Raises:
            StateError: not enrolled, or they are elsewhere than they should be.
            SettingsError: they are in the keyring, and there is none.
        """
        return self._accounts.named(account).key_place()

    def move_keys(self, to: Keys, *, account: str | None = None) -> None:
        """Moves this device's private keys to the system's keyring or to files of its home.

        Raises:
            StateError: not enrolled, or the keyring refuses.
            SettingsError: there is no keyring.
        """
        self._accounts.named(account).move_keys(to)

    def rotate_token(self, *, account: str | None = None) -> str:
        """Replaces this device's token; returns when the new one ends."""
        home = self._accounts.named(account)
        access = home.access()
        with access.client() as client:
            token, expires = client.rotate_token()
        access.with_token(token, expires).save(home.folder)
        return expires

    def stream(
        self,
        model: str,
        prompt: Prompt,
        *,
        image: ImageLike | None = None,
        options: SamplingOptions | None = None,
        engine: StockEngine | None = None,
        traffic: Traffic | None = None,
        kept: Kept | None = None,
        **changes: Unpack[OptionChanges],
    ) -> Parts:
        """Yields the answer piece by piece, then whole; closing it ends the work for it.

        Args:
            model: name of a model that this device holds; ACCOUNT/NAME where several accounts
                have one of that name.
            prompt: plain text, token ids, or the messages of a conversation, which the
                model's chat template makes a text of; it never leaves the device.
            image: what the prompt is about, for a model that takes images in its texts: a
                file, an image of Pillow or pixels; see `OpenedModel.question_about_image` for
                where it stands.
            options: how tokens are chosen and where the answer ends; None is greedy.
            engine: serves a model of the interface `tokens` in place of the triparty cloud.
            traffic: is told what goes over the wire while it does; None counts it for the
                whole answer alone.
            kept: what the turn before of the same conversation left, and this one leaves: rows
                that the cloud has are not sent again. Without effect where no session of rows
                can go on: with decoys, images, models of the interface `tokens`, and models
                with an encoder.
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
        pixels = None
        if image is None:
            question = opened.question(prompt, wanted)
        else:
            question = opened.question_about_image(prompt, wanted)
            self._shields.refuse_around_an_image(model)
            pixels = pixels_of(image, opened.bundle)
        traffic = Traffic() if traffic is None else traffic
        if question.source is not None:
            self._shields.refuse_around_a_source(model)
        if opened.bundle.info.interface == TOKENS:
            self._shields.refuse_without_rows(model)
            _refuse_guesses(model, wanted)
            said = self._from_words(opened, question, wanted, engine, traffic)
        elif engine is None:
            said = self._from_rows(opened, question, wanted, traffic, pixels, kept)
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

    def end(self, model: str, kept: Kept) -> None:
        """Ends the session that a conversation kept, if the cloud can be reached.

        Args:
            model: that the conversation was with.
            kept: what its last turn left.
        """
        session, kept.session, kept.sent = kept.session, None, []
        if session is None:
            return
        with suppress(TripartyError):
            home, _ = self._accounts.holding(model)
            with home.access().client() as client:
                client.close_session(session.id)

    def describe(
        self,
        model: str,
        image: ImageLike,
        prompt: Prompt,
        *,
        options: SamplingOptions | None = None,
        **changes: Unpack[OptionChanges],
    ) -> Generation:
        """The whole answer to a prompt about an image; see `stream`."""
        return whole(self.stream(model, prompt, image=image, options=options, **changes))

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
        home, held = self._accounts.holding(model)
        with self._opening:
            opened = self._models.get(model)
            if opened is None or opened.held != held:
                folder = (
                    home.once_folder(held.name, held.version)
                    if held.once
                    else home.bundle_folder(held.name)
                )
                opened = OpenedModel.open(held, folder)
                self._models[model] = opened
            return opened

    def _access(self, held: HeldModel) -> Access:
        """How the cloud of a held model is reached."""
        return self._accounts.named(held.account).access()

    def _from_rows(
        self,
        opened: OpenedModel,
        question: Question,
        wanted: GenerationOptions,
        traffic: Traffic,
        pixels: Pixels | None,
        kept: Kept | None,
    ) -> Pieces:
        deadline = Deadline(wanted.deadline_s)
        whole_text = question.source is not None
        if pixels is not None or whole_text or self._shields.decoys or opened.held.once:
            kept = None
        with ExitStack() as rings, self._access(opened.held).client(deadline) as client:
            picture = None
            if pixels is not None and question.image_at is not None:
                forward = Forward(
                    CountedForwards(client, traffic),
                    Key(opened.bundle, opened.held.version),
                    opened.held.name,
                    attestation=self._attestation,
                    deadline=deadline,
                )
                picture = Picture(forward.image_rows(pixels), question.image_at)

            def conversation() -> Conversation:
                keyring = rings.enter_context(self._keyring(opened.held, opened.bundle))
                key = keyring.key()
                return Conversation(
                    CountedSteps(client, traffic),
                    key.bundle,
                    opened.held.name,
                    version=key.version,
                    once=key.once,
                    begin=key.begin,
                    # The rows of an image are of one key.
                    renew=keyring.next_key if picture is None else None,
                    shield=self._shields.shield(),
                    block=self._shields.block,
                    attestation=self._attestation,
                    deadline=deadline,
                    picture=picture,
                    source=question.source,
                    kept=kept,
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

    def _keyring(self, held: HeldModel, bundle: Bundle | None = None) -> Keyring:
        return Keyring(self._accounts.named(held.account), self._in_use, held, bundle)

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
            self._keyring(opened.held, opened.bundle) as keyring,
            self._connection(opened.held, engine, deadline) as connection,
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
        deadline_s: float | None = None,
    ) -> NDArray[np.float32]:
        """Vectors (N, D) of texts, pooled and normalised as the model's owner says.

        Args:
            model: name of an encoder that this device holds.
            inputs: N plain texts, or images where the model has a space for both (files as
                `Path`); they never leave the device.
            on_shortened: told which texts were too long; their ends are left out.
            deadline_s: seconds until all vectors have to be there; None waits as long as
                something comes.

        Raises:
            StateError: no bundle of this model.
            RequestError: a model of another kind, or an input that it does not take.
            SettingsError: shields that do not apply, or Pillow is missing.
            RollbackError: the cloud hosts another version: pull.
            PoolEmptyError: fewer one-time instances are left than requests are needed.
            DeadlineError: not all answers were there in time.
            TransportError: the cloud was not reached.
        """
        with self._whole(model, "embed", EMBEDDING_TASKS) as whole:
            info, encoding = whole.key.bundle.info, whole.key.bundle.encoding()
            answers = self._answers(whole, inputs, on_shortened, deadline_s)
        vectors = [sentence_vector(answer, encoding) for answer in answers]
        return np.stack(vectors) if vectors else np.zeros((0, info.outputs), np.float32)

    def count_tokens(self, model: str, texts: Sequence[str]) -> int:
        """How many tokens an encoder reads of texts, together.

        Raises:
            StateError: no bundle of this model.
            RequestError: a text without tokens, or a model that is no encoder.
            CheckpointError: its bundle is damaged.
        """
        with self._whole(model, "embed", EMBEDDING_TASKS) as whole:
            bundle = whole.key.bundle
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
        deadline_s: float | None = None,
    ) -> list[Classification]:
        """Labels with scores of texts or images, as a model takes them.

        Args:
            model: name of a classifier that this device holds.
            inputs: plain texts, or pairs of texts, for a classifier of texts; files, images of
                Pillow or pixels for one of images. They never leave the device.
            on_shortened: told which texts were too long; their ends are left out.
            deadline_s: as in `embed`.

        Raises: as `embed`.
        """
        with self._whole(model, "classify", CLASSIFIER_TASKS) as whole:
            bundle = whole.key.bundle
            labels, scores = bundle.labels(), bundle.encoding().scores
            answers = self._answers(whole, inputs, on_shortened, deadline_s)
        return [classification(answer, labels, scores) for answer in answers]

    @contextmanager
    def _whole(self, model: str, verb: str, tasks: Sequence[str]) -> Iterator[_Whole]:
        """A model that is asked about whole inputs, with its first key."""
        home, held = self._accounts.holding(model)
        with Keyring(home, self._in_use, held) as keyring:
            key = keyring.key()
            if key.bundle.info.task not in tasks:
                raise RequestError(
                    f"'{verb}' is for models of the task {' or '.join(tasks)}; '{model}' is of "
                    f"{key.bundle.info.task}"
                )
            yield _Whole(held, keyring, key)

    def _answers(
        self,
        model: _Whole,
        given: Sequence[Input],
        on_shortened: OnShortened,
        deadline_s: float | None,
    ) -> list[Answer]:
        held, bundle = model.held, model.key.bundle
        inputs = Inputs.prepare(given, bundle, on_shortened=on_shortened)
        self._shields.refuse_around_whole_texts(held.name, images=inputs.has_images)
        if inputs.has_texts and bundle.info.interface == TOKENS:
            self._shields.refuse_without_rows(held.name)
        deadline = Deadline(deadline_s)
        with self._access(held).client(deadline) as client:
            forward = Forward(
                client,
                model.key,
                held.name,
                keys=model.keyring,
                shield=self._shields.shield(),
                attestation=self._attestation,
                deadline=deadline,
            )
            return inputs.answers(forward)

    def _connection(
        self, held: HeldModel, engine: StockEngine | None, deadline: Deadline
    ) -> Connection:
        if engine is not None:
            return engine.connection(deadline)
        return self._access(held).client(deadline).connection


@dataclass(frozen=True)
class _Whole:
    """A model that is asked about whole inputs.

    Attributes:
        held: which.
        keyring: where its keys come from.
        key: the first of them.
    """

    held: HeldModel
    keyring: Keyring
    key: Key


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
