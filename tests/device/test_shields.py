"""Shields change no answer, and what the cloud sees of them tells the real one from nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from small_cloud import POSITIONS, SmallCloud, small_bundle

from triparty.common.deadline import Deadline
from triparty.common.decoys import DecoyKind
from triparty.common.errors import AttestationError, SettingsError
from triparty.common.keying import Bundle
from triparty.common.replies import StepReply
from triparty.common.wire import Frame
from triparty.device.home import SpentDecoys
from triparty.device.inference.attestation import Attestation, SoftwareExecution
from triparty.device.inference.conversation import Conversation
from triparty.device.inference.generation import (
    Generation,
    Question,
    collect,
    question_of,
    read_tokenizer,
)
from triparty.device.inference.options import GenerationOptions
from triparty.device.inference.shields import Shields, shielded_pieces
from triparty.device.settings import DeviceSettings

PROMPT = "w3 w1 w4 w1 w5 w9 w2 w6 w5"


class WatchingCloud(SmallCloud):
    """A cloud that notes who sent how many rows, in order, and the rows of every session."""

    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.seen: list[tuple[str, int]] = []
        self.sent: dict[str, list[np.ndarray]] = {}

    def step(self, session: str, rows: Frame, **said: Any) -> StepReply:
        answer = super().step(session, rows, **said)
        self.seen.append((session, len(rows.array)))
        self.sent.setdefault(session, []).extend(rows.as_float32())
        return answer


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return small_bundle(tmp_path)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    lines = [" ".join(f"w{n}" for n in rng.integers(1, 40, 9)) for _ in range(50)]
    path = tmp_path / "texts"
    path.write_text("\n".join(lines))
    return path


def answer(
    cloud: SmallCloud,
    bundle: Bundle,
    shields: Shields,
    *,
    prompt: str = PROMPT,
    max_tokens: int = 12,
    random: Random | None = None,
) -> Generation:
    def conversation() -> Conversation:
        shield, block = shields.shield(), shields.block
        return Conversation(
            cloud,
            bundle,
            "known",
            version=1,
            shield=shield,
            block=block,
            deadline=Deadline(sleep=lambda _: None),
        )

    options = GenerationOptions(temperature=1.0, seed=4, max_tokens=max_tokens)
    question = asked(prompt, bundle, options)
    *_, last = collect(
        shielded_pieces(
            question,
            shields=shields,
            bundle=bundle,
            tokenizer=read_tokenizer(bundle),
            conversation=conversation,
            options=options,
            random=random,
        ),
        question=question,
    )
    assert isinstance(last, Generation)
    return last


def asked(prompt: str, bundle: Bundle, options: GenerationOptions) -> Question:
    return question_of(read_tokenizer(bundle).encode(prompt).ids, bundle, options)


def ending_on(bundle: Bundle, token: int) -> Bundle:
    info = replace(bundle.info, eos_ids=(token,))
    (bundle.folder / "device.json").write_bytes(info.to_json())
    return Bundle.open(bundle.folder)


@pytest.mark.parametrize("kind", DecoyKind)
@pytest.mark.parametrize("block", [1, 4, 16])
def test_decoys_and_blocks_change_no_answer(
    bundle: Bundle, texts: Path, kind: DecoyKind, block: int
) -> None:
    plain = answer(SmallCloud(), bundle, Shields())
    cloud = WatchingCloud()
    shields = Shields(block=block, decoys=3, decoy_texts=texts, decoy_kind=kind)
    shielded = answer(cloud, bundle, shields)
    assert shielded.token_ids == plain.token_ids
    assert (shielded.text, shielded.finish_reason) == (plain.text, plain.finish_reason)
    assert cloud.opened == 4
    assert not cloud.sessions, "all sessions are freed"


def test_an_answer_that_ends_early_is_the_same_and_its_decoys_go_on(
    bundle: Bundle, texts: Path
) -> None:
    fifth = answer(SmallCloud(), bundle, Shields()).token_ids[4]
    ended = ending_on(bundle, fifth)
    plain = answer(SmallCloud(), ended, Shields())
    assert plain.finish_reason == "stop"
    cloud = WatchingCloud()
    shielded = answer(cloud, ended, Shields(decoys=3, decoy_texts=texts))
    assert (shielded.token_ids, shielded.finish_reason) == (plain.token_ids, "stop")
    lengths = Counter(session for session, _ in cloud.seen)
    assert len(set(lengths.values())) > 1, "each stream ends where its own answer ends"


def test_without_shields_the_cloud_gets_the_bundle_s_own_rows(bundle: Bundle) -> None:
    cloud = WatchingCloud()
    answer(cloud, bundle, Shields())
    ids = np.array([int(word[1:]) for word in PROMPT.split()])
    (sent,) = cloud.sent.values()
    np.testing.assert_array_equal(sent[: len(ids)], bundle.rows(ids, start=0).array)


def place_of_the_real(cloud: WatchingCloud, bundle: Bundle) -> int:
    ids = np.array([int(word[1:]) for word in PROMPT.split()])
    rows = bundle.rows(ids, start=0).array
    order = list(dict.fromkeys(session for session, _ in cloud.seen))
    real = [s for s in order if np.array_equal(cloud.sent[s][: len(ids)], rows)]
    assert len(real) == 1
    return order.index(real[0])


def test_the_real_stream_is_at_each_place_equally_often(bundle: Bundle, texts: Path) -> None:
    shields = Shields(decoys=3, decoy_texts=texts)
    random, runs = Random(0), 400
    places: Counter[int] = Counter()
    for _ in range(runs):
        cloud = WatchingCloud(rows_per_step=16)
        answer(cloud, bundle, shields, max_tokens=1, random=random)
        places[place_of_the_real(cloud, bundle)] += 1
    chi_square = sum((places[place] - runs / 4) ** 2 / (runs / 4) for place in range(4))
    assert chi_square < 16.3  # of 3 degrees of freedom, exceeded once in a thousand


def test_streams_take_turns_in_one_order_with_requests_of_one_size(
    bundle: Bundle, texts: Path
) -> None:
    cloud = WatchingCloud(rows_per_step=16)
    answer(cloud, bundle, Shields(decoys=3, decoy_texts=texts), max_tokens=6)
    rounds = [cloud.seen[at : at + 4] for at in range(0, len(cloud.seen), 4)]
    assert [size for _, size in rounds[0]] == [9] * 4
    for turn in rounds:
        assert [session for session, _ in turn] == [session for session, _ in rounds[0]]
        assert len({size for _, size in turn}) == 1


def test_a_reader_s_pause_comes_between_rounds(bundle: Bundle, texts: Path) -> None:
    """Who reads slowly must not show by that which stream is read."""
    cloud = WatchingCloud(rows_per_step=16)
    shields = Shields(decoys=3, decoy_texts=texts)
    options = GenerationOptions(max_tokens=6)
    stream = shielded_pieces(
        asked(PROMPT, bundle, options),
        shields=shields,
        bundle=bundle,
        tokenizer=read_tokenizer(bundle),
        conversation=lambda: Conversation(cloud, bundle, "known", version=1),
        options=options,
    )
    for number, _ in enumerate(stream, start=1):
        assert len(cloud.seen) == 4 * number
    assert number == 6


@pytest.mark.parametrize("words", [1, 5, 9, 12])
@pytest.mark.parametrize("max_tokens", [1, 3, 7, 12])
def test_sessions_are_whole_blocks(bundle: Bundle, words: int, max_tokens: int) -> None:
    prompt = " ".join(PROMPT.split()[:1] * words)
    plain = answer(SmallCloud(), bundle, Shields(), prompt=prompt, max_tokens=max_tokens)
    cloud = WatchingCloud(rows_per_step=16)
    shielded = answer(cloud, bundle, Shields(block=8), prompt=prompt, max_tokens=max_tokens)
    assert shielded.token_ids == plain.token_ids
    assert sum(size for _, size in cloud.seen) % 8 == 0
    assert all(size == 1 or size % 8 == 0 for _, size in cloud.seen)


def test_an_end_is_no_row_that_travels(bundle: Bundle) -> None:
    """Rows after the answer never hold the end token, which the cloud may know."""
    fifth = answer(SmallCloud(), bundle, Shields()).token_ids[4]
    ended = ending_on(bundle, fifth)
    cloud = WatchingCloud(rows_per_step=16)
    answer(cloud, ended, Shields(block=32))
    (sent,) = cloud.sent.values()
    end = ended.rows(np.array([fifth]), start=0).array[0]
    assert len(sent) == 32
    assert not any(np.array_equal(row, end) for row in sent[len(PROMPT.split()) :])


def test_a_block_that_the_model_has_no_room_for_is_left_open(bundle: Bundle) -> None:
    cloud = WatchingCloud(rows_per_step=16)
    shielded = answer(cloud, bundle, Shields(block=48), max_tokens=POSITIONS)
    assert len(shielded.token_ids) == POSITIONS - len(PROMPT.split())


def test_noise_of_a_replay_is_that_of_the_first_time(bundle: Bundle) -> None:
    cloud = WatchingCloud(rows_per_step=16)
    cloud.lose_before = {6}
    shielded = answer(cloud, bundle, Shields(noise=0.5))
    assert len(shielded.token_ids) == 12
    first, second = cloud.sent.values()
    assert cloud.opened == 2
    np.testing.assert_array_equal(first, second[: len(first)])


def test_noise_of_a_repeated_request_is_that_of_the_first_time(bundle: Bundle) -> None:
    cloud = WatchingCloud(rows_per_step=16)
    sent: dict[tuple[int, int], set[bytes]] = {}
    plain_step = cloud.step

    def step(session: str, rows: Frame, **said: object) -> StepReply:
        sent.setdefault((int(str(said["position"])), 0), set()).add(rows.array.tobytes())
        return plain_step(session, rows, **said)  # type: ignore[arg-type]

    cloud.step = step  # type: ignore[method-assign, assignment]
    cloud.break_after = {2, 3, 4}
    answer(cloud, bundle, Shields(noise=0.5))
    assert all(len(bodies) == 1 for bodies in sent.values())


def test_two_conversations_have_noise_of_their_own(bundle: Bundle) -> None:
    clouds = [WatchingCloud(), WatchingCloud()]
    for cloud in clouds:
        answer(cloud, bundle, Shields(noise=0.5), max_tokens=1)
    (first,), (second,) = (cloud.sent.values() for cloud in clouds)
    assert not np.allclose(first, second)


def test_texts_serve_once_for_all_time(bundle: Bundle, texts: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()

    def ask() -> list[bytes]:
        cloud = WatchingCloud(rows_per_step=16)
        options = GenerationOptions(max_tokens=1)
        shielded = shielded_pieces(
            asked(PROMPT, bundle, options),
            shields=Shields(decoys=20, decoy_texts=texts),
            bundle=bundle,
            tokenizer=read_tokenizer(bundle),
            conversation=lambda: Conversation(cloud, bundle, "known", version=1),
            options=options,
            spent=SpentDecoys(home),
        )
        list(shielded)
        return [np.stack(rows).tobytes() for rows in cloud.sent.values()]

    first, second = ask(), ask()
    assert len({*first, *second}) == 41, "only the question itself comes again"
    assert len(SpentDecoys(home).read()) == 40
    with pytest.raises(SettingsError, match="decoy texts that were not used yet"):
        ask()


def test_decoys_need_texts_and_settings_reach_the_shields(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="decoy-texts"):
        Shields(decoys=2)
    settings = DeviceSettings.load(
        None, noise=0.3, decoys=2, decoy_texts=texts, length_block=16, bfloat16_rows=True
    )
    expected = Shields(noise=0.3, to_bfloat16=True, block=16, decoys=2, decoy_texts=texts)
    assert settings.shields() == expected
    assert DeviceSettings.load(None).shields() == Shields()
    with pytest.raises(SettingsError, match="noise"):
        DeviceSettings.load(None, noise=-1)


def test_texts_that_cannot_be_read_are_named(bundle: Bundle, tmp_path: Path) -> None:
    shields = Shields(decoys=2, decoy_texts=tmp_path / "absent")
    cloud = SmallCloud()
    with pytest.raises(SettingsError, match="absent"):
        answer(cloud, bundle, shields)
    assert cloud.steps == 0


def test_ids_have_no_rows_to_shield() -> None:
    Shields().refuse_without_rows("model")
    with pytest.raises(SettingsError, match="interface 'tokens'"):
        Shields(noise=0.1).refuse_without_rows("model")


def test_nothing_is_sent_without_proof_of_what_runs(bundle: Bundle) -> None:
    honest = SoftwareExecution(b"m" * 32, b"k" * 32)
    other = SoftwareExecution(b"o" * 32, b"k" * 32)
    for execution in (honest, other):
        cloud = SmallCloud()
        attestation = Attestation(execution, honest, b"m" * 32)
        with Conversation(
            cloud, bundle, "known", version=1, attestation=attestation
        ) as conversation:
            if execution is honest:
                conversation.logits_after([1])
                assert cloud.steps == 1
            else:
                with pytest.raises(AttestationError):
                    conversation.logits_after([1])
                assert (cloud.opened, cloud.steps) == (0, 0)


def test_every_new_session_is_proven_anew(bundle: Bundle) -> None:
    honest = SoftwareExecution(b"m" * 32, b"k" * 32)
    asked: list[bytes] = []

    class Turning:
        """Genuine once; after the session was lost something else runs."""

        def attest(self, nonce: bytes) -> bytes:
            asked.append(nonce)
            return honest.attest(nonce if len(asked) == 1 else bytes(32))

    cloud = SmallCloud()
    cloud.lose_before = {2}
    attestation = Attestation(Turning(), honest, b"m" * 32)
    with Conversation(cloud, bundle, "known", version=1, attestation=attestation) as talk:
        talk.logits_after([1])
        with pytest.raises(AttestationError):
            talk.logits_after([2])
    assert (cloud.opened, len(asked)) == (1, 2)
