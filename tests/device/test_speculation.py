"""Guessing ahead: the very answer that there would be without, whatever is guessed.

The cloud is a small causal function; `tests/exchange/test_speculation.py` tells the same of
trained models over HTTPS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_cloud import POSITIONS, SmallCloud, V, small_bundle

from triparty.common.deadline import Deadline
from triparty.common.errors import SettingsError
from triparty.common.keying import Bundle
from triparty.common.sampling import SamplingOptions, distribution, next_token
from triparty.common.shielding import Shield
from triparty.device.inference import generation
from triparty.device.inference.answer import Piece
from triparty.device.inference.conversation import Conversation
from triparty.device.inference.drafts import Draft, PromptLookup
from triparty.device.inference.generation import (
    Generation,
    collect,
    pieces,
    question_of,
    read_tokenizer,
)
from triparty.device.inference.options import GenerationOptions
from triparty.device.inference.shields import Shields, shielded_pieces
from triparty.device.inference.speculation import MOST_REST, Pace, Speculation
from triparty.device.inference.traffic import CountedSteps, Traffic

PROMPT = "w3 w1 w4 w1 w5 w9 w2 w6 w5"
LENGTH = len(PROMPT.split())
GREEDY = GenerationOptions(max_tokens=30, logprobs=2)
DRAWN = GenerationOptions(
    max_tokens=30,
    temperature=0.9,
    top_k=12,
    top_p=0.95,
    min_p=0.01,
    repetition_penalty=1.2,
    seed=7,
    logprobs=1,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("bundle"))


def roomy(**options: Any) -> SmallCloud:
    return SmallCloud(rows_per_step=32, **options)


@dataclass
class Told:
    """An answer and what it took."""

    pieces: list[Piece]
    whole: Generation
    cloud: SmallCloud
    traffic: Traffic

    @property
    def ids(self) -> tuple[int, ...]:
        return self.whole.token_ids


def tell(
    bundle: Bundle,
    options: GenerationOptions = GREEDY,
    *,
    draft: Draft | None = None,
    most: int = 0,
    cloud: SmallCloud | None = None,
    shield: Shield | None = None,
) -> Told:
    cloud, traffic = cloud or roomy(), Traffic()
    tokenizer = read_tokenizer(bundle)
    question = question_of(tokenizer.encode(PROMPT).ids, bundle, options)
    with Conversation(
        CountedSteps(cloud, traffic),
        bundle,
        "known",
        version=1,
        shield=shield,
        deadline=Deadline(sleep=lambda _: None),
    ) as conversation:
        said = pieces(
            question,
            bundle=bundle,
            tokenizer=tokenizer,
            conversation=conversation,
            options=options,
            speculation=Speculation(most, vocabulary=V, draft=draft, traffic=traffic),
        )
        *told, whole = collect(said, question=question, traffic=traffic)
    assert isinstance(whole, Generation)
    return Told([piece for piece in told if isinstance(piece, Piece)], whole, cloud, traffic)


@dataclass(frozen=True)
class Knowing:
    """Guesses from a known answer, changed by a rule; takes no notice of `count`."""

    answer: Sequence[int]
    change: Callable[[int, int], int] = lambda _, token: token

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        at = len(ids) - LENGTH
        following = [*self.answer[at:], *range(200)]
        return [self.change(at + i, token) for i, token in enumerate(following)]


def wrong(_: int, token: int) -> int:
    return (token + 1) % V


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("most", [1, 2, 7, 31, 63])
@pytest.mark.parametrize(
    "change",
    [
        lambda _, token: token,
        wrong,
        lambda at, token: token if at % 3 else wrong(at, token),
        lambda at, token: token if at % 5 else V + 3,
        lambda at, token: token if at % 4 else -1,
    ],
    ids=["right", "wrong", "some right", "no token", "below all tokens"],
)
def test_the_answer_is_the_one_without_guesses(
    bundle: Bundle, options: GenerationOptions, most: int, change: Any
) -> None:
    plain = tell(bundle, options)
    guessed = tell(bundle, options, draft=Knowing(plain.ids, change), most=most)
    assert guessed.pieces == plain.pieces  # texts, ids, log-probabilities, the likeliest
    assert guessed.whole.finish_reason == plain.whole.finish_reason
    assert guessed.cloud.steps <= plain.cloud.steps
    assert len(set(plain.ids)) > 6, "the answer varies"


@given(
    seed=st.integers(0, 2**32),
    most=st.integers(0, 20),
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    penalty=st.sampled_from([1.0, 1.5]),
    shares=st.lists(st.booleans(), min_size=64, max_size=64),
    limits=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    lost=st.sets(st.integers(2, 20), max_size=2),
)
@settings(max_examples=25)
def test_whatever_is_guessed_and_whatever_happens(
    bundle: Bundle,
    seed: int,
    most: int,
    temperature: float,
    penalty: float,
    shares: list[bool],
    limits: tuple[int, int],
    lost: set[int],
) -> None:
    options = GenerationOptions(
        temperature=temperature, repetition_penalty=penalty, seed=seed, max_tokens=None
    )
    plain = tell(bundle, options)
    draft = Knowing(plain.ids, lambda at, token: token if shares[at % 64] else wrong(at, token))
    cloud = SmallCloud(rows_per_step=limits[0], reply_rows=limits[1])
    cloud.lose_before, cloud.break_after = lost, {n + 1 for n in lost}
    guessed = tell(bundle, options, draft=draft, most=most, cloud=cloud)
    assert guessed.pieces == plain.pieces
    assert len(guessed.ids) == POSITIONS - LENGTH, "the answer goes to the last position"


def test_right_guesses_save_round_trips(bundle: Bundle) -> None:
    plain = tell(bundle)
    guessed = tell(bundle, draft=Knowing(plain.ids), most=7)
    assert plain.cloud.steps == 30
    assert guessed.cloud.steps == 5  # 1 token alone, 4 + 1, then 7 + 1 each
    assert (guessed.traffic.wrong_guesses, guessed.cloud.taken_back) == (0, 0)


@pytest.mark.parametrize("most", [3, 9, 20, 63])
def test_nothing_is_guessed_behind_the_last_token(bundle: Bundle, most: int) -> None:
    plain = tell(bundle)
    guessed = tell(bundle, draft=Knowing(plain.ids), most=most)
    assert guessed.traffic.wrong_guesses == 0
    assert guessed.traffic.rows == plain.traffic.rows


def test_wrong_guesses_cost_little_and_are_counted(bundle: Bundle) -> None:
    plain = tell(bundle)
    guessed = tell(bundle, draft=Knowing(plain.ids, wrong), most=31)
    assert guessed.cloud.steps == plain.cloud.steps
    assert guessed.traffic.guesses == guessed.traffic.wrong_guesses
    assert guessed.traffic.rows - plain.traffic.rows == guessed.traffic.guesses
    assert 4 <= guessed.traffic.guesses <= 13
    assert guessed.cloud.taken_back == guessed.traffic.wrong_guesses


def test_guesses_after_the_end_are_counted_as_wrong(bundle: Bundle) -> None:
    plain = tell(bundle)
    options = replace(GREEDY, stop=plain.pieces[3].text.strip())
    end = tell(bundle, options)
    assert end.whole.finish_reason == "stop"
    guessed = tell(bundle, options, draft=Knowing(plain.ids), most=20)
    assert guessed.pieces == end.pieces
    assert guessed.traffic.guesses - guessed.traffic.wrong_guesses == len(end.ids) - 1


@pytest.mark.parametrize("at", range(1, 8))
def test_a_session_that_is_lost_among_guesses_is_replayed(bundle: Bundle, at: int) -> None:
    plain = tell(bundle, DRAWN)
    cloud = roomy()
    cloud.lose_before, cloud.break_after = {at}, {at + 2}
    draft = Knowing(plain.ids, lambda at, token: token if at % 3 else wrong(at, token))
    guessed = tell(bundle, DRAWN, draft=draft, most=5, cloud=cloud)
    assert guessed.pieces == plain.pieces
    assert cloud.opened == 2
    assert cloud.taken_back, "guesses were taken back"


def test_the_next_session_may_answer_about_fewer_rows(bundle: Bundle) -> None:
    class Shrinking(SmallCloud):
        def open_session(self, model: str) -> Any:
            self.reply_rows = 20 if self.opened == 0 else 2
            return super().open_session(model)

    plain = tell(bundle)
    cloud = Shrinking(rows_per_step=32)
    cloud.lose_before = {3}
    guessed = tell(bundle, draft=Knowing(plain.ids), most=12, cloud=cloud)
    assert guessed.pieces == plain.pieces
    assert cloud.opened == 2


def test_a_cloud_that_knows_one_row_alone_is_asked_for_no_more(bundle: Bundle) -> None:
    plain = tell(bundle)
    guessed = tell(bundle, draft=Knowing(plain.ids), most=12, cloud=roomy(reply_rows=1))
    assert guessed.pieces == plain.pieces
    assert guessed.traffic.guesses == 0


def test_noise_is_that_of_the_answer_without_guesses(bundle: Bundle) -> None:
    shield = Shield.fresh(noise=0.3)
    plain = tell(bundle, shield=shield)
    draft = Knowing(plain.ids, lambda at, token: token if at % 3 else wrong(at, token))
    assert tell(bundle, draft=draft, most=9, shield=shield).pieces == plain.pieces
    assert tell(bundle, shield=Shield.fresh(noise=0.3)).ids != plain.ids  # it matters


# Drawn answers have the model's distribution, and a wrong rule would be seen.

SMALL = SamplingOptions(temperature=1.0, top_k=3)
ANSWERS = 1000


def pairs(bundle: Bundle) -> Counter[tuple[int, ...]]:
    """Second and third tokens of many drawn answers that begin alike, beside guesses."""

    class Likeliest:
        """Guesses always the same two tokens, which are likely."""

        def propose(self, ids: Sequence[int], count: int) -> list[int]:
            return [*favourites, 0][:count]

    first = tell(bundle, GenerationOptions(max_tokens=3)).ids
    favourites = first[1:]
    found: Counter[tuple[int, ...]] = Counter()
    for seed in range(ANSWERS):
        options = GenerationOptions.of(SMALL, {"seed": seed, "max_tokens": 3})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generation, "next_token", beginning_with(first[0]))
            told = tell(bundle, options, draft=Likeliest(), most=2, cloud=roomy(sharpness=0.3))
        found[told.ids[1:]] += 1
    return found


def beginning_with(first: int) -> Callable[..., int]:
    draw = generation.next_token  # a control may have changed it

    def chosen(logits: Any, options: Any, rng: Any, seen: Sequence[int] = ()) -> int:
        return first if len(seen) == LENGTH else draw(logits, options, rng, seen)

    return chosen


def expected_pairs(bundle: Bundle) -> dict[tuple[int, ...], float]:
    ids = read_tokenizer(bundle).encode(PROMPT).ids
    ids = [*ids, tell(bundle, GenerationOptions(max_tokens=1)).ids[0]]

    def probabilities(text: list[int]) -> np.ndarray:
        with Conversation(roomy(sharpness=0.3), bundle, "known", version=1) as conversation:
            return distribution(conversation.logits_after(text), SMALL)

    one = probabilities(ids)
    kept = np.flatnonzero(one).tolist()
    two = {token: probabilities([*ids, token]) for token in kept}
    joint = {(a, b): float(one[a] * two[a][b]) for a, b in product(kept, range(V))}
    return {pair: share for pair, share in joint.items() if share > 0}


def chi_square(bundle: Bundle) -> float:
    """The p-value of the drawn pairs under the model's own distribution."""
    from scipy.stats import chisquare

    expected, found = expected_pairs(bundle), pairs(bundle)
    assert set(found) <= set(expected)
    assert len(expected) == 9
    counts = [found[pair] for pair in expected]
    return float(chisquare(counts, [ANSWERS * share for share in expected.values()]).pvalue)


def test_drawn_answers_have_the_models_distribution(bundle: Bundle) -> None:
    assert chi_square(bundle) > 0.01


def test_a_rule_that_keeps_likely_guesses_without_a_draw_is_noticed(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the two tests of the law are worth: both see a rule that is wrong now and then."""

    def keeping(logits: Any, options: Any, rng: Any, seen: Sequence[int] = ()) -> int:
        token = next_token(logits, options, rng, seen)
        if options.is_greedy:
            return token
        likely = distribution(logits, options, seen)
        return int(likely.argmax()) if likely.max() > 0.35 else token

    monkeypatch.setattr(generation, "next_token", keeping)
    assert chi_square(bundle) < 1e-6


# What guesses.


def slow_lookup(ids: list[int], count: int, longest: int, shortest: int) -> list[int]:
    for size in range(min(longest, len(ids) - 1), shortest - 1, -1):
        ends = [
            at for at in range(size, len(ids)) if ids[at - size : at] == ids[len(ids) - size :]
        ]
        if ends:
            whole = [at for at in ends if at + count <= len(ids)]
            start = whole[-1] if whole else ends[0]
            return ids[start : start + count]
    return []


@given(
    ids=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    count=st.integers(1, 9),
    longest=st.integers(1, 4),
    shortest=st.integers(1, 3),
)
def test_a_lookup_finds_what_followed_before(
    ids: list[int], count: int, longest: int, shortest: int
) -> None:
    found = PromptLookup(longest, shortest).propose(ids, count)
    assert found == slow_lookup(ids, count, longest, shortest)


def test_a_lookup_of_examples() -> None:
    assert PromptLookup().propose([1, 2, 3, 4, 1, 2], 2) == [3, 4]
    assert PromptLookup().propose([7, 2, 9, 1, 2, 8, 5, 1, 2], 2) == [8, 5]
    assert PromptLookup().propose([5, 5, 5, 5], 3) == [5]
    assert PromptLookup().propose([1, 2, 3], 4) == []
    assert PromptLookup().propose([1, 2, 3, 2], 4) == []
    assert PromptLookup(3, 1).propose([1, 2, 3, 2], 4) == [3, 2]
    assert PromptLookup().propose([1], 4) == []


@given(
    most=st.integers(1, 63), steps=st.lists(st.tuples(st.integers(0, 63), st.integers(0, 63)))
)
def test_a_pace_stays_inside_its_limits(most: int, steps: list[tuple[int, int]]) -> None:
    pace = Pace(most, min(most, 4))
    for proposed, accepted in steps:
        proposed = min(pace.count, proposed)
        pace = pace.after(proposed, min(proposed, accepted))
        assert 1 <= pace.length <= most
        assert 0 <= pace.count <= most
        assert 0 <= pace.rest <= MOST_REST


def test_a_pace_recovers_and_gives_up_by_turns() -> None:
    pace, sent = Pace(63, 4), 0
    for _ in range(1000):
        sent += pace.count
        pace = pace.after(pace.count, 0)
    assert sent < 210, "misses cost a fifth more rows, and not more"
    while pace.rest:
        pace = pace.after(0, 0)
    for _ in range(7):
        pace = pace.after(pace.count, pace.count)
    assert pace.count == 63
    assert pace.after(63, 10).count == 11


# What guesses would undo.


@pytest.mark.parametrize(
    ("shields", "word"),
    [(Shields(decoys=2, decoy_texts=Path("texts")), "decoys"), (Shields(block=8), "length")],
)
def test_shields_that_guesses_would_undo_are_refused(
    bundle: Bundle, shields: Shields, word: str
) -> None:
    cloud = roomy()
    said = shielded_pieces(
        question_of([1, 2], bundle, GREEDY),
        shields=shields,
        bundle=bundle,
        tokenizer=read_tokenizer(bundle),
        conversation=lambda: Conversation(cloud, bundle, "known", version=1),
        options=GREEDY,
        speculation=Speculation(4, vocabulary=V),
    )
    with pytest.raises(SettingsError, match=word):
        next(said)
    assert cloud.opened == 0


@pytest.mark.parametrize(
    "options", [{"speculate": -1}, {"speculate": 64}, {"draft": PromptLookup()}]
)
def test_options_without_a_meaning_are_refused(options: Any) -> None:
    with pytest.raises(SettingsError):
        GenerationOptions(**options)
