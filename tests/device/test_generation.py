"""One answer on a bad day: lost sessions, broken connections, other epochs, odd prompts.

The cloud here is a small causal function behind the `Steps` interface, which can fail on
purpose; the same story runs against real clouds in `tests/exchange`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from small_cloud import POSITIONS, SmallCloud, small_bundle
from tokenizers import Tokenizer

from triparty.common.deadline import Deadline
from triparty.common.errors import (
    CloudError,
    NotFoundError,
    RequestError,
    RollbackError,
    SettingsError,
    UnreachableError,
)
from triparty.common.keying import Bundle
from triparty.device.inference.conversation import PAUSES_S, Conversation
from triparty.device.inference.generation import (
    Generation,
    collect,
    pieces,
    question_of,
    read_tokenizer,
)
from triparty.device.inference.options import GenerationOptions


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return small_bundle(tmp_path)


PROMPT = "w3 w1 w4 w1 w5 w9 w2 w6 w5"


def answer(cloud: SmallCloud, bundle: Bundle, **wanted: object) -> Generation:
    prompt = str(wanted.get("prompt", PROMPT))
    options = GenerationOptions(max_tokens=int(str(wanted.get("max_tokens", 12))))
    tokenizer, deadline = read_tokenizer(bundle), Deadline(sleep=lambda _: None)
    question = question_of(tokenizer.encode(prompt).ids, bundle, options)
    with Conversation(cloud, bundle, "known", version=1, deadline=deadline) as conversation:
        stream = collect(
            pieces(
                question,
                bundle=bundle,
                tokenizer=tokenizer,
                conversation=conversation,
                options=options,
            ),
            question=question,
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
    from triparty.device.inference.answer import AnswerText

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


@pytest.mark.parametrize(
    ("before", "token", "after"), [([345, 61, 253], 269, " and"), ([109, 251], 459, "E")]
)
def test_bytes_that_are_no_character_end_no_answer(
    stories_model: Path, before: list[int], token: int, after: str
) -> None:
    """Such bytes take what was shown before them along, which streams do not expect."""
    from triparty.device.inference.answer import AnswerText

    tokenizer = Tokenizer.from_file(str(stories_model / "tokenizer.json"))
    text = AnswerText(tokenizer, [1])
    for one in before:
        text.after(one)
    assert text.after(token) == after
    assert text.after(300) + text.rest() == " ha"


def byte_tokenizer() -> Tokenizer:
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = Decoder()
    return tokenizer
