"""One answer on a bad day: lost sessions, broken connections, other epochs, odd prompts.

The cloud here is a small causal function behind the `Steps` interface, which can fail on
purpose; the same story runs against real clouds in `tests/exchange`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.errors import (
    CloudError,
    NotFoundError,
    RequestError,
    RollbackError,
    SettingsError,
    UnreachableError,
)
from triparty.common.keying import Bundle
from triparty.common.replies import SessionRecord, StepReply
from triparty.common.sampling import SamplingOptions
from triparty.common.wire import Frame
from triparty.device.inference.conversation import PAUSES_S, Conversation
from triparty.device.inference.generation import Generation, collect, pieces, read_tokenizer

V, D, POSITIONS = 40, 8, 64
Fault = Callable[[int], None]


class SmallCloud:
    """A causal function of all rows of a session, and a plan of faults by step number."""

    def __init__(self, *, epoch: int = 1, rows_per_step: int = 4) -> None:
        rng = np.random.default_rng(5)
        self.mixing = rng.normal(size=(D, V)).astype(np.float32)
        self.epoch, self.rows_per_step = epoch, rows_per_step
        self.sessions: dict[str, list[np.ndarray]] = {}
        self.replies: dict[tuple[str, str], list[Frame]] = {}
        self.steps = 0
        self.opened = 0
        self.lose_before: set[int] = set()
        self.break_after: set[int] = set()
        self.break_always = False
        self.poison = False

    def open_session(self, model: str) -> SessionRecord:
        if model != "known":
            raise NotFoundError(f"no model '{model}'")
        self.opened += 1
        name = f"session-{self.opened}"
        self.sessions[name] = []
        return SessionRecord(name, 1, self.epoch, 0, self.rows_per_step, POSITIONS)

    def step(
        self, session: str, rows: Frame, *, position: int, request_id: str, reply: str
    ) -> StepReply:
        self.steps += 1
        if self.break_always:
            raise UnreachableError("the network is down")
        if self.steps in self.lose_before:
            self.sessions.clear()
        if session not in self.sessions:
            raise NotFoundError("no such session")
        if (session, request_id) not in self.replies:
            held = self.sessions[session]
            assert position == len(held), "the device sent rows twice, or skipped some"
            held.extend(rows.as_float32())
            state = sum(np.tanh(row) * (i + 1) for i, row in enumerate(held))
            logits = (np.tanh(state) @ self.mixing)[None].astype(np.float32)
            if self.poison:
                logits[0, 0] = np.nan
            self.replies[session, request_id] = [Frame.of(logits)]
        if self.steps in self.break_after:
            raise UnreachableError("the reply was lost on the way")
        return StepReply(tuple(self.replies[session, request_id]), position + len(rows.array))

    def close_session(self, session: str) -> None:
        self.sessions.pop(session, None)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(V, D)).astype(np.float32)
    save_file({"rows": rows}, tmp_path / "embedding.safetensors")
    order = rng.permutation(V).astype(np.int32)
    save_file({"order": order}, tmp_path / "head.safetensors")
    info = DeviceInfo(
        family="llama",
        task="causal-lm",
        interface="embeddings",
        width=D,
        vocabulary=V,
        outputs=V,
        max_positions=POSITIONS,
        positions=False,
        segments=0,
        image=None,
        dtype="float32",
        transport="float32",
        bos_id=None,
        eos_ids=(),
        pad_id=None,
        chat_template=None,
        replies=("logits",),
        epoch=1,
    )
    (tmp_path / "device.json").write_bytes(info.to_json())
    words = {f"w{i}": i for i in range(V)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return Bundle.open(tmp_path)


PROMPT = "w3 w1 w4 w1 w5 w9 w2 w6 w5"


def answer(cloud: SmallCloud, bundle: Bundle, **wanted: object) -> Generation:
    prompt = str(wanted.get("prompt", PROMPT))
    options = SamplingOptions()
    pauses: list[float] = []
    with Conversation(cloud, bundle, "known", version=1, sleep=pauses.append) as conversation:
        stream: Iterator[object] = collect(
            pieces(
                prompt,
                bundle=bundle,
                tokenizer=read_tokenizer(bundle),
                conversation=conversation,
                options=options,
                max_tokens=int(str(wanted.get("max_tokens", 12))),
            ),
        )
        *streamed, last = stream
    assert isinstance(last, Generation)
    assert "".join(getattr(piece, "text", "") for piece in streamed) == last.text
    return last


def test_an_answer_on_a_good_day(bundle: Bundle) -> None:
    cloud = SmallCloud()
    generation = answer(cloud, bundle)
    assert len(generation.token_ids) == 12
    assert generation.finish_reason == "length"
    assert generation.text.split() == [f"w{token}" for token in generation.token_ids]
    assert not cloud.sessions, "the conversation frees its session"
    assert len(set(generation.token_ids)) > 2, "the small cloud's answers vary"


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 9])
def test_a_lost_session_is_replayed_and_the_answer_is_the_same(bundle: Bundle, at: int) -> None:
    expected = answer(SmallCloud(), bundle).token_ids
    cloud = SmallCloud()
    cloud.lose_before = {at}
    assert answer(cloud, bundle).token_ids == expected
    assert cloud.opened == 2


@pytest.mark.parametrize("at", [1, 3, 7])
def test_a_lost_reply_is_asked_for_again_and_no_row_runs_twice(bundle: Bundle, at: int) -> None:
    expected = answer(SmallCloud(), bundle).token_ids
    cloud = SmallCloud()
    cloud.break_after = {at, at + 1}
    assert answer(cloud, bundle).token_ids == expected
    assert cloud.opened == 1


def test_a_cloud_that_stays_away_ends_in_its_error(bundle: Bundle) -> None:
    cloud = SmallCloud()
    cloud.break_always = True
    with pytest.raises(UnreachableError):
        answer(cloud, bundle)
    assert cloud.steps == 1 + len(PAUSES_S)


def test_another_epoch_is_refused_before_anything_is_sent(bundle: Bundle) -> None:
    cloud = SmallCloud(epoch=2)
    with pytest.raises(RollbackError, match="triparty device pull"):
        answer(cloud, bundle)
    assert cloud.steps == 0
    assert not cloud.sessions


def test_an_unknown_model_is_not_asked_for_twice(bundle: Bundle) -> None:
    cloud = SmallCloud()
    with (
        pytest.raises(NotFoundError),
        Conversation(cloud, bundle, "other", version=1) as conversation,
    ):
        conversation.logits_after([1])
    assert cloud.opened == 0


def test_an_end_token_stops_the_answer(bundle: Bundle) -> None:
    from dataclasses import replace

    fifth = answer(SmallCloud(), bundle).token_ids[4]
    info = replace(bundle.info, eos_ids=(fifth,))
    (bundle.folder / "device.json").write_bytes(info.to_json())
    generation = answer(SmallCloud(), Bundle.open(bundle.folder))
    assert generation.finish_reason == "stop"
    assert generation.token_ids[-1] == fifth
    assert len(generation.token_ids) <= 5


def test_the_answer_ends_where_the_model_ends(bundle: Bundle) -> None:
    generation = answer(SmallCloud(), bundle, max_tokens=1000)
    assert len(generation.token_ids) == POSITIONS - len(PROMPT.split())


@pytest.mark.parametrize("prompt", ["", " ", "w1 " * POSITIONS])
def test_odd_prompts_are_refused(bundle: Bundle, prompt: str) -> None:
    cloud = SmallCloud()
    with pytest.raises(RequestError, match="prompt"):
        answer(cloud, bundle, prompt=prompt)
    assert cloud.steps == 0


def test_no_tokens_wanted_is_a_usage_error(bundle: Bundle) -> None:
    with pytest.raises(SettingsError, match="max-tokens"):
        answer(SmallCloud(), bundle, max_tokens=0)


def test_logits_that_are_not_finite_are_refused(bundle: Bundle) -> None:
    cloud = SmallCloud()
    cloud.poison = True
    with pytest.raises(CloudError, match="finite"):
        answer(cloud, bundle)


def test_characters_split_over_tokens_are_shown_whole(bundle: Bundle) -> None:
    from triparty.device.inference.generation import AnswerText

    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("naïve 漢字 🙂").ids
    text = AnswerText(tokenizer, ids[:2])
    shown = [text.after(token) for token in ids[2:]]
    assert "".join(shown) + text.rest() == "ïve 漢字 🙂"
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in shown)

    cut = AnswerText(tokenizer, ids[:2])
    for token in ids[2:-1]:
        cut.after(token)
    assert cut.rest() == "\N{REPLACEMENT CHARACTER}"


def byte_tokenizer() -> Tokenizer:
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = Decoder()
    return tokenizer
