"""A device's forward requests, without a cloud: what goes together, what is sent again."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tiny_encoders import write_tokenizer

from triparty.common.deadline import Deadline
from triparty.common.deviceinfo import DeviceInfo, ImageInfo
from triparty.common.encodinginfo import EncodingInfo
from triparty.common.errors import (
    AttestationError,
    CloudError,
    DeadlineError,
    NotFoundError,
    PoolEmptyError,
    RequestError,
    RetiredError,
    RollbackError,
    SpentError,
    TooLargeError,
    UnreachableError,
)
from triparty.common.keying import Bundle
from triparty.common.replies import ForwardReply, SessionRecord
from triparty.common.shielding import Shield
from triparty.common.wire import DType, Frame
from triparty.device.inference.attestation import Attestation, SoftwareExecution
from triparty.device.inference.conversation import PAUSES_S
from triparty.device.inference.forwarding import Forward, TextIds, in_requests, text_ids
from triparty.device.inference.generation import read_tokenizer
from triparty.device.keyring import Key

V, D, POSITIONS, TYPES = 48, 6, 12, 2
IMAGE = ImageInfo(1, 4, 2)
WHOLE = ("open", "forward", "close")


@dataclass
class SmallCloud:
    """Answers each row with itself, or each image with its first numbers; fails as told."""

    most_rows: int = 10_000
    most_images: int = 10_000
    lost: int = 0
    version: int = 3
    epoch: int = 1
    poison: bool = False
    shape: tuple[int, ...] | None = None
    requests: list[Mapping[str, Frame]] = field(default_factory=list)

    def open_session(
        self, model: str, *, version: int | None = None, request_id: str | None = None
    ) -> SessionRecord:
        raise AssertionError("a shared key needs no session")

    def close_session(self, session: str) -> None:
        raise AssertionError("there is none")

    def forward(
        self,
        model: str,
        inputs: Mapping[str, Frame],
        *,
        session: str | None = None,
        request_id: str | None = None,
    ) -> ForwardReply:
        self.requests.append(inputs)
        if self.lost:
            self.lost -= 1
            raise UnreachableError("the network is down")
        first = next(iter(inputs.values()))
        if "pixels" in inputs:
            answer = first.array.reshape(len(first.array), -1)[:, :D]
            if len(answer) > self.most_images:
                raise TooLargeError("too many images")
        elif "ids" in inputs:
            answer = np.repeat(first.array[..., None], D, axis=2).astype(np.float32)
        else:
            answer = first.as_float32()
        if "mask" in inputs and inputs["mask"].array.size > self.most_rows:
            raise TooLargeError("too many rows")
        if self.shape is not None:
            answer = np.zeros(self.shape, np.float32)
        if self.poison:
            answer = np.full_like(answer, np.nan)
        return ForwardReply(Frame.of(np.ascontiguousarray(answer)), self.version, self.epoch)


def bundle_of(folder: Path, **changes: Any) -> Bundle:
    rng = np.random.default_rng(0)
    tables = {
        "rows": rng.normal(size=(V, D)),
        "positions": rng.normal(size=(POSITIONS, D)),
        "types": rng.normal(size=(TYPES, D)),
    }
    save_file(
        {n: t.astype(np.float32) for n, t in tables.items()}, folder / "embedding.safetensors"
    )
    head = {"order": np.arange(D, dtype=np.int32)[::-1].copy()}
    if changes.get("interface") == "tokens":
        head["vocabulary_order"] = rng.permutation(V).astype(np.int32)
    save_file(head, folder / "head.safetensors")
    save_file({"mix": np.eye(4)}, folder / "patches.safetensors")
    values: dict[str, Any] = {
        "family": "bert",
        "task": "sentence-embedding",
        "interface": "embeddings",
        "width": D,
        "vocabulary": V,
        "outputs": D,
        "max_positions": POSITIONS,
        "positions": True,
        "segments": TYPES,
        "image": None,
        "dtype": "float32",
        "transport": "float32",
        "bos_id": None,
        "eos_ids": (),
        "pad_id": None,
        "chat_template": None,
        "replies": ("logits",),
        "epoch": 1,
    }
    info = DeviceInfo(**values | changes)
    (folder / "device.json").write_bytes(info.to_json())
    write_tokenizer(folder)
    return Bundle.open(folder)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return bundle_of(tmp_path)


def forward_of(cloud: SmallCloud, bundle: Bundle, **options: Any) -> Forward:
    deadline = Deadline(sleep=lambda _: None)
    return Forward(cloud, Key(bundle, 3), "known", deadline=deadline, **options)


def texts_of(*lengths: int) -> list[TextIds]:
    rng = np.random.default_rng(1)
    return [
        TextIds(rng.integers(0, V, n), rng.integers(0, TYPES, n), is_shortened=False)
        for n in lengths
    ]


def check(answers: Any, texts: list[TextIds], bundle: Bundle) -> None:
    """Each answer is what `SmallCloud` says of that text, un-keyed."""
    for answer, text in zip(answers, texts, strict=True):
        rows = bundle.rows(text.ids, start=0, types=text.types).as_float32()
        assert (answer == rows[:, ::-1]).all()


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 60))
def test_every_text_goes_once_and_with_its_like(lengths: list[int], most: int) -> None:
    requests = list(in_requests(lengths, most=most))
    assert sorted(at for request in requests for at in request) == list(range(len(lengths)))
    for request in requests:
        longest = max(lengths[at] for at in request)
        assert len(request) == 1 or longest * len(request) <= most
    ends = [
        (min(r, key=lengths.__getitem__), max(r, key=lengths.__getitem__)) for r in requests
    ]
    for (_, before), (after, _) in itertools.pairwise(ends):
        assert lengths[before] <= lengths[after]


def test_answers_come_in_the_order_of_the_texts(bundle: Bundle) -> None:
    texts = texts_of(5, 1, 12, 3, 3, 9)
    check(forward_of(SmallCloud(), bundle).texts(texts), texts, bundle)


def test_padding_is_zeros_under_a_mask(bundle: Bundle) -> None:
    cloud = SmallCloud()
    forward_of(cloud, bundle).texts(texts_of(2, 5))
    (inputs,) = cloud.requests
    assert list(inputs) == ["rows", "mask"]
    assert inputs["mask"].array.tolist() == [[1, 1, 0, 0, 0], [1] * 5]
    assert not inputs["rows"].array[0, 2:].any()


def test_what_the_cloud_does_not_take_at_once_is_halved(bundle: Bundle) -> None:
    cloud, texts = SmallCloud(most_rows=20), texts_of(*[5] * 10)
    check(forward_of(cloud, bundle).texts(texts), texts, bundle)
    taken = [inputs["mask"].array.size for inputs in cloud.requests]
    assert max(taken[1:]) <= 25
    with pytest.raises(TooLargeError):
        forward_of(SmallCloud(most_rows=4), bundle).texts(texts)


def test_a_lost_request_is_sent_again(bundle: Bundle) -> None:
    cloud, texts = SmallCloud(lost=len(PAUSES_S)), texts_of(4)
    check(forward_of(cloud, bundle).texts(texts), texts, bundle)
    assert len({id(inputs) for inputs in cloud.requests}) == 1
    with pytest.raises(UnreachableError):
        forward_of(SmallCloud(lost=99), bundle).texts(texts)


@pytest.mark.parametrize(("name", "value"), [("version", 4), ("epoch", 2)])
def test_an_answer_under_another_key_is_not_read(bundle: Bundle, name: str, value: int) -> None:
    with pytest.raises(RollbackError, match="triparty device pull"):
        forward_of(SmallCloud(**{name: value}), bundle).texts(texts_of(3))


@pytest.mark.parametrize(
    "changes",
    [{"poison": True}, {"shape": (1, 3, D + 1)}, {"shape": (2, 3, D)}, {"shape": (D,)}],
)
def test_an_answer_that_makes_no_sense_is_refused(
    bundle: Bundle, changes: dict[str, Any]
) -> None:
    with pytest.raises(CloudError):
        forward_of(SmallCloud(**changes), bundle).texts(texts_of(3))


def test_rows_are_shielded(bundle: Bundle) -> None:
    cloud, texts = SmallCloud(), texts_of(3, 3)
    shield = Shield.fresh(noise=0.5, to_bfloat16=True)
    forward_of(cloud, bundle, shield=shield).texts(texts)
    (inputs,) = cloud.requests
    assert inputs["rows"].dtype is DType.BF16
    plain = np.stack([bundle.rows(t.ids, start=0, types=t.types).as_float32() for t in texts])
    assert np.abs(inputs["rows"].as_float32() - plain).mean() > 0.1


def test_ids_go_keyed_and_types_where_there_are_any(tmp_path: Path) -> None:
    changes = {"interface": "tokens", "replies": (), "positions": False, "segments": 0}
    bundle = bundle_of(tmp_path, **changes)
    cloud, texts = SmallCloud(), texts_of(4)
    forward_of(cloud, bundle).texts(texts)
    one_part = TextIds(texts[0].ids, 0 * texts[0].types, is_shortened=False)
    forward_of(cloud, bundle).texts([one_part])
    with_types, without = cloud.requests
    assert list(with_types) == ["ids", "mask", "types"]
    assert list(without) == ["ids", "mask"]
    assert with_types["ids"].array[0].tolist() == bundle.keyed_ids(texts[0].ids).tolist()
    assert (with_types["ids"].array[0] != texts[0].ids).any()


def test_images_go_keyed_in_requests_that_the_cloud_takes(tmp_path: Path) -> None:
    changes = {"task": "image-classification", "vocabulary": 0, "image": IMAGE, "segments": 0}
    bundle = bundle_of(tmp_path, **changes, positions=False)
    images = list(np.random.default_rng(3).normal(size=(7, 1, 4, 4)).astype(np.float32))
    cloud = SmallCloud(most_images=2)
    answers = forward_of(cloud, bundle).images(images)
    expected = [bundle.pixels(image).reshape(-1)[:D][::-1] for image in images]
    assert (np.stack(answers) == np.stack(expected)).all()


def test_nothing_goes_without_the_proof_that_was_asked_for(bundle: Bundle) -> None:
    real = SoftwareExecution(b"what runs", b"secret")
    cloud = SmallCloud()
    for expected, refused in ((b"what runs", False), (b"something else", True)):
        forward = forward_of(cloud, bundle, attestation=Attestation(real, real, expected))
        if refused:
            with pytest.raises(AttestationError):
                forward.texts(texts_of(2))
        else:
            forward.texts(texts_of(2))
    assert len(cloud.requests) == 1
    forward_of(cloud, bundle, attestation=Attestation(real, real, b"something else")).texts([])


def test_texts_are_cut_where_the_model_ends(bundle: Bundle) -> None:
    """And never where the tokenizer's own file would cut or pad them."""
    texts = ["bee", "river " * 8, "river " * 30]
    made = text_ids(texts, read_tokenizer(bundle), EncodingInfo(), positions=POSITIONS)
    assert [len(text.ids) for text in made] == [3, 10, 12]
    assert [text.is_shortened for text in made] == [False, False, True]
    assert made[2].ids[-1] == made[0].ids[-1]  # the end token is there
    short = EncodingInfo(max_tokens=5)
    made = text_ids(texts, read_tokenizer(bundle), short, positions=POSITIONS)
    assert [len(text.ids) for text in made] == [3, 5, 5]
    made = text_ids(texts, read_tokenizer(bundle), EncodingInfo(max_tokens=99), positions=6)
    assert [len(text.ids) for text in made] == [3, 6, 6]


def test_pairs_prompts_and_lowercase(bundle: Bundle) -> None:
    tokenizer = read_tokenizer(bundle)

    def ids(text: Any, **members: Any) -> TextIds:
        (made,) = text_ids([text], tokenizer, EncodingInfo(**members), positions=POSITIONS)
        return made

    pair = ids(("bee river", "stone"))
    assert pair.types.tolist() == [0, 0, 0, 0, 1, 1]
    assert (ids("BEE", lowercase=True).ids == ids("bee").ids).all()
    assert (ids("bee", prompt="river ").ids == ids("river bee").ids).all()
    prompted = ids(("BEE", "Stone"), prompt="river ", lowercase=True)
    assert (prompted.ids == ids(("river bee", "stone")).ids).all()


def test_a_text_without_tokens_is_refused(bundle: Bundle) -> None:
    tokenizer = read_tokenizer(bundle)
    tokenizer.post_processor = None
    with pytest.raises(RequestError, match="text 1 has no tokens"):
        text_ids(["bee", ""], tokenizer, EncodingInfo(), positions=POSITIONS)


def test_an_answer_that_is_late_is_an_error_and_is_not_waited_for(bundle: Bundle) -> None:
    now, waited = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    class Away(SmallCloud):
        def forward(self, model: str, inputs: Any, **_: Any) -> ForwardReply:
            now[0] += 1.0
            raise UnreachableError("away")

    deadline = Deadline(3.0, clock=lambda: now[0], sleep=sleep)
    forward = Forward(Away(), Key(bundle, 3), "known", deadline=deadline)
    with pytest.raises(DeadlineError, match="within 3 seconds"):
        forward.texts(texts_of(3))
    assert now[0] <= 4.0
    assert waited


@dataclass
class OnceCloud(SmallCloud):
    """A cloud of one-time instances; each opens one session, which has one request."""

    told: list[str] = field(default_factory=list)
    spent: dict[int, str] = field(default_factory=dict)
    sessions: dict[str, list[str]] = field(default_factory=dict)
    break_after: set[str] = field(default_factory=set)
    lose: set[int] = field(default_factory=set)

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if what in self.break_after:
            self.break_after.remove(what)
            raise UnreachableError("the answer was lost")

    def open_session(
        self, model: str, *, version: int | None = None, request_id: str | None = None
    ) -> SessionRecord:
        assert version is not None
        assert request_id is not None
        if self.spent.setdefault(version, request_id) != request_id:
            self.told.append(f"refused {version}")
            raise SpentError("used")
        self.sessions.setdefault(str(version), [])
        self._tell(f"open {version}")
        return SessionRecord(str(version), version, 1, 0, 64, POSITIONS)

    def forward(
        self,
        model: str,
        inputs: Mapping[str, Frame],
        *,
        session: str | None = None,
        request_id: str | None = None,
    ) -> ForwardReply:
        assert session is not None
        assert request_id is not None
        if int(session) in self.lose:
            del self.sessions[session]
            self.lose.remove(int(session))
        if session not in self.sessions:
            raise NotFoundError("no such session")
        ids = self.sessions[session]
        assert set(ids) <= {request_id}, "a second request in one session"
        ids.append(request_id)
        self.version = int(session)
        self._tell(f"forward {session}")
        return super().forward(model, inputs)

    def close_session(self, session: str) -> None:
        self.sessions.pop(session, None)
        self.told.append(f"close {session}")


@dataclass
class Pool:
    """One-time keys, in order; what they were noted as used before."""

    cloud: OnceCloud
    bundle: Bundle
    left: list[int]
    used: list[int] = field(default_factory=list)

    def require(self, count: int) -> None:
        if len(self.left) + 1 < count:  # one is taken
            raise PoolEmptyError("too few")

    def key(self) -> Key:
        if not self.left:
            raise PoolEmptyError("none left")
        version = self.left.pop(0)

        def begin() -> None:
            assert f"open {version}" in self.cloud.told
            assert f"forward {version}" not in self.cloud.told
            self.used.append(version)

        return Key(self.bundle, version, once=True, begin=begin)

    def next_key(self) -> Key:
        return self.key()

    def forward(self) -> Forward:
        deadline = Deadline(sleep=lambda _: None)
        return Forward(self.cloud, self.key(), "known", keys=self, deadline=deadline)


def test_each_request_takes_a_one_time_key_of_its_own(bundle: Bundle) -> None:
    cloud = OnceCloud()
    pool, texts = Pool(cloud, bundle, [4, 5, 6, 7]), texts_of(*[POSITIONS] * 400)
    check(pool.forward().texts(texts), texts, bundle)
    each = [f"{what} {version}" for version in (4, 5, 6) for what in WHOLE]
    assert cloud.told == each
    assert pool.used == [4, 5, 6]


def test_requests_that_are_halved_take_a_key_each(bundle: Bundle) -> None:
    cloud = OnceCloud(most_rows=8)
    pool = Pool(cloud, bundle, [4, 5, 6])
    texts = texts_of(7, 7)
    check(pool.forward().texts(texts), texts, bundle)
    assert pool.used == [4, 5, 6]  # the one that was too large was sent under the first


@pytest.mark.parametrize("lost", ["open 4", "forward 4"])
def test_an_answer_that_is_lost_costs_no_second_key(bundle: Bundle, lost: str) -> None:
    cloud = OnceCloud(break_after={lost})
    pool, texts = Pool(cloud, bundle, [4, 5]), texts_of(3)
    check(pool.forward().texts(texts), texts, bundle)
    assert pool.used == [4]
    assert cloud.told.count(lost) == 2


def test_a_key_that_is_used_or_whose_session_is_lost_is_followed_by_the_next(
    bundle: Bundle,
) -> None:
    cloud = OnceCloud(spent={4: "somebody"}, lose={5})
    pool, texts = Pool(cloud, bundle, [4, 5, 6]), texts_of(3)
    check(pool.forward().texts(texts), texts, bundle)
    assert pool.used == [5, 6]  # 4 was refused before anything was sent
    cloud = OnceCloud(lose={4})
    with pytest.raises(PoolEmptyError):
        Pool(cloud, bundle, [4]).forward().texts(texts)


def test_too_few_keys_are_noticed_before_anything_is_sent(bundle: Bundle) -> None:
    cloud = OnceCloud()
    pool = Pool(cloud, bundle, [4, 5])
    with pytest.raises(PoolEmptyError):
        pool.forward().texts(texts_of(*[POSITIONS] * 400))
    assert cloud.told == []


def test_a_shared_key_that_ended_is_followed_by_a_newer_one(bundle: Bundle) -> None:
    class Rotated(SmallCloud):
        def forward(self, model: str, inputs: Any, **rest: Any) -> ForwardReply:
            if self.version == 3:
                self.version = 4
                raise RetiredError("the epoch ended")
            return super().forward(model, inputs, **rest)

    @dataclass
    class Newer:
        asked: int = 0

        def require(self, count: int) -> None: ...

        def key(self) -> Key:
            raise AssertionError("there is one")

        def next_key(self) -> Key:
            self.asked += 1
            return Key(bundle, 4)

    newer, texts = Newer(), texts_of(*[POSITIONS] * 400)
    deadline = Deadline(sleep=lambda _: None)
    forward = Forward(Rotated(), Key(bundle, 3), "known", keys=newer, deadline=deadline)
    check(forward.texts(texts), texts, bundle)
    assert newer.asked == 1  # for the first request; the others go on with it
