"""A small sentence encoder for trying things out, trained here on generated questions.

A BERT of two hundred thousand weights that knows a building's words: questions about rooms,
people and cars, and what else the same is called. Of other subjects it knows letters alone. So
questions about generated films can be asked without downloading a model; a trained one such as
all-MiniLM-L6-v2 understands far more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from string import ascii_lowercase, digits
from typing import TYPE_CHECKING, Any

import numpy as np

from triparty.common.console import progress
from triparty.developer.protect.output import new_folder
from triparty.developer.stock import quiet
from triparty.developer.threads import one_thread

if TYPE_CHECKING:
    import torch
    from transformers import BertModel, PreTrainedTokenizerFast

WIDTH, LAYERS, HEADS = 96, 2, 4
LENGTH = 40
BATCH = 48
LEARNING_RATE = 2e-3
TEMPERATURE = 0.07
SEED = 11
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}

PLACES = (
    ("meeting room", "conference room", "boardroom", "room for meetings"),
    ("yard", "courtyard", "car park", "parking lot", "parking area", "outside area"),
    ("corridor", "hallway", "hall", "passage"),
    ("kitchen", "canteen", "break room", "pantry"),
    ("entrance", "front door", "main door", "reception", "lobby", "way in"),
    ("warehouse", "storage", "store room", "stock room", "depot"),
    ("office", "study", "desk area", "work place"),
    ("garage", "workshop", "repair bay"),
    ("stairs", "staircase", "stairwell", "steps"),
    ("garden", "lawn", "terrace", "patio"),
    ("gate", "barrier", "driveway", "loading dock"),
    ("server room", "machine room", "computer room"),
)
"""What means the same place."""
THINGS = (
    ("person", "somebody", "people", "someone", "anyone", "visitor", "man", "woman", "staff"),
    ("car", "vehicle", "automobile", "van", "auto"),
    ("dog", "animal", "cat", "pet"),
    ("bicycle", "bike", "cycle"),
    ("box", "parcel", "package", "delivery"),
    ("truck", "lorry"),
)
"""What means the same object."""
QUESTIONS = (
    (
        "was anybody in the {p}",
        "was there a {t} in the {p}",
        "did you see a {t} in the {p}",
        "was the {p} in use",
        "has a {t} been to the {p}",
        "was any {t} around in the {p}",
        "is there a {t} in the {p}",
        "was the {p} occupied",
    ),
    (
        "was the {p} empty",
        "was nobody in the {p}",
        "was there no {t} in the {p}",
        "was the {p} free",
        "did the {p} stay empty",
        "was the {p} unused",
    ),
    (
        "did a {t} come into the {p}",
        "did anybody enter the {p}",
        "has a {t} arrived at the {p}",
        "did a {t} get in",
        "did a {t} walk into the {p}",
    ),
    (
        "did a {t} leave the {p}",
        "did anybody go out of the {p}",
        "has a {t} gone from the {p}",
        "did a {t} walk out of the {p}",
    ),
    (
        "how many {t} were in the {p} at once",
        "how many {t} were there at most",
        "what was the largest number of {t} in the {p}",
        "how crowded was the {p}",
    ),
    (
        "how many {t} came into the {p}",
        "how many times did a {t} enter the {p}",
        "how many {t} arrived",
        "number of visits to the {p}",
        "how often did a {t} come",
    ),
    (
        "how many {t} left the {p}",
        "how many times did a {t} leave the {p}",
        "how often did a {t} go",
    ),
    (
        "when did the first {t} come",
        "when did a {t} first enter the {p}",
        "at what time did the first {t} arrive",
        "when was the first {t} seen in the {p}",
    ),
    (
        "when did the last {t} come into the {p}",
        "when did a {t} last enter the {p}",
        "at what time did the last {t} arrive",
    ),
    (
        "when did the last {t} leave",
        "when was a {t} last seen in the {p}",
        "when was the last {t} there",
    ),
    (
        "how long was the {p} occupied",
        "how long did a {t} stay in the {p}",
        "for how many minutes was a {t} in the {p}",
        "how much time did a {t} spend in the {p}",
    ),
    (
        "where was a {t}",
        "in which room was a {t}",
        "which camera saw a {t}",
        "where did a {t} appear",
    ),
    (
        "what happened in the {p}",
        "list what went on in the {p}",
        "show me the events of the {p}",
        "what was going on",
    ),
    (
        "was anything unusual in the {p}",
        "did anything strange happen",
        "was there an anomaly in the {p}",
    ),
)
"""What asks for the same, with a place and an object."""


@dataclass(frozen=True)
class TrainedEncoder:
    """How the training went.

    Attributes:
        seconds: it took.
        steps: batches seen.
        loss: of the last batches, mean; nats.
        parameters: weights of the model.
    """

    seconds: float
    steps: int
    loss: float
    parameters: int


def make_example_encoder(
    out: Path, *, steps: int = 350, clock: Callable[[], float] = time.monotonic
) -> TrainedEncoder:
    """Trains the encoder and writes a folder as sentence-transformers lays it out.

    Args:
        out: a folder that does not exist yet.
        steps: batches to train on.
        clock: seconds.

    Raises:
        StateError: `out` exists.
    """
    import torch

    with new_folder(out) as folder, quiet():
        with one_thread(), torch.random.fork_rng():
            torch.manual_seed(SEED)
            tokenizer, model = _tokenizer(), _model()
            started = clock()
            losses = _train(model, tokenizer, steps)
        took = clock() - started
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _describe(folder)
    return TrainedEncoder(
        seconds=round(took, 1),
        steps=steps,
        loss=round(float(np.mean(losses[-20:])), 3),
        parameters=sum(weights.numel() for weights in model.parameters()),
    )


def pairs(rng: np.random.Generator) -> Iterator[tuple[str, str, str]]:
    """Names of places and objects and questions, each in two forms, and what they mean."""
    while True:
        kind = rng.random()
        if kind < 0.55:
            groups, article = (PLACES, "the ") if kind < 0.3 else (THINGS, "a ")
            same = groups[rng.integers(len(groups))]
            yield same[0], *_two(same, rng, article)
        else:
            number = int(rng.integers(len(QUESTIONS)))
            place, thing = PLACES[rng.integers(len(PLACES))], THINGS[rng.integers(len(THINGS))]
            one, other = _two(QUESTIONS[number], rng)
            yield (
                f"question {number}",
                one.format(p=rng.choice(place), t=rng.choice(thing)),
                other.format(p=rng.choice(place), t=rng.choice(thing)),
            )


def _two(same: tuple[str, ...], rng: np.random.Generator, article: str = "") -> tuple[str, str]:
    """Two of what means the same, each with an article or without."""
    one, other = rng.choice(len(same), 2, replace=False)
    first, second = rng.random(2) < 0.5
    return (article if first else "") + same[one], (article if second else "") + same[other]


def _tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(_vocabulary(), unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(LENGTH)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=LENGTH,
        **SPECIAL,
    )


def _vocabulary() -> dict[str, int]:
    """Letters, alone and within words, and all words that are learnt: the same every time."""
    texts = [
        text.format(p="", t="") for group in (*PLACES, *THINGS, *QUESTIONS) for text in group
    ]
    letters = ascii_lowercase + digits
    pieces = [*SPECIAL.values(), *letters, *(f"##{letter}" for letter in letters)]
    words = sorted({word for text in texts for word in text.split()} - set(pieces))
    return {piece: number for number, piece in enumerate([*pieces, *words])}


def _model() -> BertModel:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(_vocabulary()),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.05,
        attention_probs_dropout_prob=0.05,
        pad_token_id=0,
    )
    return BertModel(config)


def _train(model: BertModel, tokenizer: PreTrainedTokenizerFast, steps: int) -> list[float]:
    """The losses of steps in which, of a batch, each finds its other half."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    source = pairs(np.random.default_rng(SEED))
    model.train()
    losses: list[float] = []
    with progress("training", steps) as advance:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * max(0.02, 1 - step / steps)
            meanings, ones, others = zip(*islice(source, BATCH), strict=True)
            first, second = (_vectors(model, tokenizer, list(each)) for each in (ones, others))
            likeness = first @ second.T / TEMPERATURE
            loss = torch.nn.functional.cross_entropy(likeness, _same(meanings))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
            advance(1)
    model.train(False)
    return losses


def _same(meanings: Sequence[str]) -> torch.Tensor:
    """(B, B) float32 shares: of each first, which seconds mean the same."""
    import torch

    same = torch.tensor([[float(a == b) for b in meanings] for a in meanings])
    return same / same.sum(dim=1, keepdim=True)


def _vectors(model: Any, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """(B, D) of length 1: the mean over tokens."""
    import torch

    fed = tokenizer(texts, padding=True, return_tensors="pt")
    hidden = model(**fed).last_hidden_state
    mask = fed["attention_mask"][..., None]
    return torch.nn.functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=-1)


def _describe(folder: Path) -> None:
    """The files in which sentence-transformers says how a sentence is pooled."""
    modules = [
        ("0", "", "sentence_transformers.models.Transformer"),
        ("1", "1_Pooling", "sentence_transformers.models.Pooling"),
        ("2", "2_Normalize", "sentence_transformers.models.Normalize"),
    ]
    described = [
        {"idx": int(name), "name": name, "path": path, "type": kind}
        for name, path, kind in modules
    ]
    _write(folder / "modules.json", described)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": LENGTH})
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}
    _write(folder / "1_Pooling" / "config.json", pooling)


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
