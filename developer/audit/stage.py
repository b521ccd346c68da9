"""One mitigation on its stage: compiled, its rows shielded, its costs taken."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.decoys import DecoyTexts
from triparty.common.keying import Bundle, KeyedReply
from triparty.common.shielding import Shield
from triparty.common.wire import Frame, encode_frame
from triparty.developer.audit.knowledge import KnownRows, Table, given
from triparty.developer.audit.mitigations import Mitigation
from triparty.developer.audit.naming import named_shares, requests_among_decoys
from triparty.developer.audit.plausible import drawn_texts, unigrams
from triparty.developer.audit.scene import Scene, set_scene
from triparty.developer.audit.tuning import embedding_of, tuned
from triparty.developer.protect import Choices, protect
from triparty.developer.protect.compiler import DEVICE_FOLDER, MODEL_FOLDER
from triparty.developer.stock import load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEPT = 64  # tokens of a text that decoys are drawn from
QUESTION = 24  # tokens of a question among decoys
CACHED_ROWS = 64  # before the decode step that is timed
PRIVATE_STEP = 1.0  # how far a private table is moved before it is trained, of its size


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rows: of traffic that are attacked where a mitigation names no number.
        most: rows that are attacked where it does.
        judged: texts on which accuracy is judged.
        length: tokens of a text, if the model has positions for so many.
        tuning: steps of training where a mitigation trains.
        known: distinct tokens whose rows an attacker of K1 and above knows.
        timed: decode steps that are timed.
        requests: that are asked among decoys.
        decoys: texts that decoys are drawn from, and that models are trained on.
        seed: of all texts; a search and its report have different ones.
    """

    rows: int = 10_240
    most: int = 102_400
    judged: int = 24
    length: int = 128
    tuning: int = 300
    known: int = 16
    timed: int = 30
    requests: int = 200
    decoys: int = 4000
    seed: int = 0


QUICK = Effort(rows=1024, most=1024, judged=9, tuning=5, timed=3, requests=20, decoys=600)


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts (n, T) for what must not be mixed up."""

    counted: NDArray[np.int64]
    kept: NDArray[np.int64]
    traffic: NDArray[np.int64]
    judged: NDArray[np.int64]


@dataclass(frozen=True)
class Costs:
    """Of one token: processor seconds and bytes."""

    device_s: float
    cloud_s: float
    size: int


class Stage:
    """One mitigation, compiled and ready to be measured."""

    def __init__(
        self,
        source: Path,
        plain: PreTrainedModel,
        mitigation: Mitigation,
        effort: Effort,
        texts: Texts,
        folder: Path,
    ) -> None:
        """Trains if the mitigation trains, and compiles."""
        folder.mkdir()
        self._plain, self._mitigation = plain, mitigation
        self._effort, self._texts = effort, texts
        self._source = source
        if mitigation.private_table or mitigation.tuned_under:
            self._source = tuned(
                source,
                folder / "tuned",
                texts.kept,
                noise=mitigation.tuned_under,
                table=PRIVATE_STEP if mitigation.private_table else 0.0,
                steps=effort.tuning,
            )
        choices = dict(mitigation.choices)
        if choices.get("expand") == 0:
            choices["expand"] = 2 * int(plain.config.hidden_size)
        self._out = folder / "out"
        started = time.perf_counter()
        protect(str(self._source), self._out, choices=Choices.of(**choices))
        self.seconds = time.perf_counter() - started
        self._bundle = Bundle.open(self._out / DEVICE_FOLDER)
        self._hosted = load_model(self._out / MODEL_FOLDER)

    def _sent(self, ids: NDArray[np.int64], start: int = 0) -> Frame:
        """A request of a conversation of its own, as it goes over the wire."""
        shield = Shield.fresh(
            noise=self._mitigation.noise, to_bfloat16=self._mitigation.to_bfloat16
        )
        return shield.rows(self._bundle.rows(ids, start=start), start=start)

    @property
    def size(self) -> int:
        """Bytes of an instance: its model and one bundle."""
        folders = (self._out / MODEL_FOLDER, self._out / DEVICE_FOLDER)
        return sum(
            file.stat().st_size
            for folder in folders
            for file in folder.rglob("*")
            if file.is_file()
        )

    def scene(self, *, known: int | None = None, rows: int | None = None) -> Scene:
        """What attackers get: the traffic through the shield, and what they counted.

        Args:
            known: distinct tokens whose rows they know; None: as many as the effort says.
            rows: of traffic; None: as many as travel under one key.
        """
        known = self._effort.known if known is None else known
        wanted = rows or self._mitigation.rows_per_key or self._effort.rows
        limit = min(self._effort.most, wanted)
        texts = self._texts.traffic[: -(-limit // self._texts.traffic.shape[1])]
        over = texts.size - limit
        ids = [*texts[:-1], texts[-1][: len(texts[-1]) - max(0, over)]]
        requests = [self._sent(text).as_float32() for text in ids]
        found = set_scene(str(self._source), self._out)
        table = given(found.knowledge.table)
        if self._mitigation.private_table:
            table = replace(table, rows=embedding_of(self._plain).detach().float().numpy())
        counted = unigrams(self._texts.counted, self._bundle.info.vocabulary)
        knowledge = replace(
            found.knowledge,
            traffic=tuple(requests),
            starts=(0,) * len(requests),
            table=table,
            known=_known(requests, ids, table, counted, known),
            noise=self._mitigation.noise,
            unigrams=counted,
            language=tuple(self._texts.counted),
        )
        return Scene(knowledge, replace(found.truth, token_ids=tuple(ids)), found.scheme)

    def named(self) -> Mapping[str, float]:
        """Share of requests whose real text each way of telling names; empty if none."""
        if not self._mitigation.decoys:
            return {}
        questions = self._texts.traffic[: self._effort.requests, :QUESTION]
        requests, places = requests_among_decoys(
            questions,
            self._mitigation.decoys,
            DecoyTexts(list(self._texts.kept), self._mitigation.decoy_kind),
            Random(5),  # noqa: S311 - a measurement that can be repeated
        )
        counted = unigrams(self._texts.counted, self._bundle.info.vocabulary)
        return named_shares(requests, places, model=self._plain, unigrams=counted)

    def accuracy(self, plain: NDArray[np.float32]) -> tuple[float, float]:
        """Agreement on the likeliest token, and the ratio of perplexities.

        Args:
            plain: (n, T, V) the plain model's logits of the judged texts.
        """
        import torch

        judged = self._texts.judged
        rows = np.stack([self._sent(text).as_float32() for text in judged])
        with torch.inference_mode():
            said = self._answering(inputs_embeds=torch.from_numpy(rows).to(self._hosted.dtype))
        keyed = KeyedReply(said[0].float().numpy())
        logits = np.asarray(self._bundle.plain_logits(keyed))
        agreement = float((logits.argmax(axis=-1) == plain.argmax(axis=-1)).mean())
        return agreement, float(np.exp(_nats(logits, judged) - _nats(plain, judged)))

    def costs(self) -> Costs:
        """Processor time and bytes of a decode step, the least of several."""
        device, cloud, size = [], [], 0
        text = self._texts.judged[0]
        start = min(CACHED_ROWS, len(text) - 2)
        for _ in range(self._effort.timed):
            began = time.process_time()
            request = encode_frame(self._sent(text[start : start + 1], start))
            sent = time.process_time()
            device.append(sent - began)
            cloud_s, reply = self._cloud_step(text, start)
            cloud.append(cloud_s)
            began = time.process_time()
            self._read(reply)
            device[-1] += time.process_time() - began
            size = len(request) + len(encode_frame(Frame.of(reply)))
        return Costs(min(device), min(cloud), size)

    def _cloud_step(
        self, text: NDArray[np.int64], start: int
    ) -> tuple[float, NDArray[np.float32]]:
        """Processor seconds of one row after `start` others, and the reply (1, O) to it."""
        import torch

        model, dtype = self._answering, self._hosted.dtype
        rows = torch.from_numpy(self._sent(text[: start + 1]).as_float32()).to(dtype)
        with torch.inference_mode():
            cache = model(inputs_embeds=rows[None, :-1], use_cache=True).past_key_values
            began = time.process_time()
            said = model(inputs_embeds=rows[None, -1:], past_key_values=cache, use_cache=True)
            seconds = time.process_time() - began
        reply: NDArray[np.float32] = said[0][0].float().numpy()
        return seconds, reply

    @property
    def _answering(self) -> Any:
        """The part of the hosted model that makes what the cloud replies."""
        return self._hosted if self._bundle.head is None else self._hosted.base_model

    def _read(self, reply: NDArray[np.float32]) -> None:
        """What the device does with a reply."""
        self._bundle.plain_logits(KeyedReply(reply))


def _known(
    requests: Sequence[NDArray[np.float32]],
    ids: Sequence[NDArray[np.int64]],
    table: Table,
    frequencies: NDArray[np.float64],
    count: int,
) -> KnownRows | None:
    """The first row of each of the most frequent tokens: what templates give away."""
    rows, tokens = np.concatenate(requests), np.concatenate(ids)
    found, first = np.unique(tokens, return_index=True)
    chosen = np.argsort(-frequencies[found])[:count]
    if not len(chosen):
        return None
    plain, taken = table.rows[found[chosen]], first[chosen]
    if table.positions is None:
        return KnownRows(rows[taken], plain, found[chosen])
    places = np.concatenate([np.arange(len(text)) for text in ids])
    return KnownRows(rows[taken], plain + table.positions[places[taken]])


def _nats(logits: NDArray[np.float32], texts: NDArray[np.int64]) -> float:
    """Mean negative log-likelihood of each next token."""
    wide = logits[:, :-1].astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    normal = np.log(np.exp(wide).sum(axis=-1))
    picked = np.take_along_axis(wide, texts[:, 1:, None], axis=-1)[..., 0]
    return float((normal - picked).mean())


def texts_of(plain: PreTrainedModel, effort: Effort) -> Texts:
    """Texts for everything that is measured, each kind from draws of its own."""
    length = min(effort.length, int(plain.config.max_position_embeddings))

    def drawn(count: int, kind: int, length: int = length) -> NDArray[np.int64]:
        return drawn_texts(plain, count, length, seed=4 * effort.seed + kind)

    needed, most = -(-effort.rows // length), -(-effort.most // length)
    return Texts(
        drawn(max(needed, 40), 0),
        drawn(effort.decoys, 1, min(length, KEPT)),
        drawn(max(most, effort.requests), 2),
        drawn(effort.judged, 3),
    )


def plain_logits(plain: PreTrainedModel, texts: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, T, V) what the plain model says of texts (n, T)."""
    import torch

    with torch.inference_mode():
        said: NDArray[np.float32] = plain(input_ids=torch.from_numpy(texts)).logits.numpy()
    return said
