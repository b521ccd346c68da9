"""Real data for filters, with the outputs of models trained on the sets' own labels.

The model that is filtered makes the labels (thesis 3.1). HAR: convolutions over time, trained
on the official training windows, so that most outputs are on windows that it never saw. The
other sets are too small to be parted thrice: their models know all of their set, and what they
say is nearly its labels. What models say is kept under build/filters; remove that folder to
train them anew.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ROOT, BenchError
from triparty.common.nets.words import VOCABULARY, hashed

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Task:
    """Inputs, what the model said, and what makes it needed.

    Attributes:
        inputs: (n, ...).
        said: (n,) class that the model said.
        wanted: classes for which it is needed.
        group: (n,) subject, fold or day; 0 where it is not known.
        accuracy: of the model, by the set's labels.
        summary: (n, k) low-level features.
    """

    inputs: NDArray[Any]
    said: Rows
    wanted: tuple[int, ...]
    group: Rows
    accuracy: float
    summary: NDArray[np.float32]

    @property
    def needed(self) -> NDArray[np.bool_]:
        """(n,) whether the model is needed."""
        return np.isin(self.said, self.wanted)


def _folder() -> Path:
    folder = Path(os.environ.get("TRIPARTY_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        raise BenchError(f"real data absent: {folder} (set TRIPARTY_TEST_DATA)")
    return folder / "sets"


@lru_cache
def har() -> Task:
    """UCI HAR: windows of body motion; needed where somebody lies."""
    with np.load(_folder() / "uci_har" / "uci_har_inertial_5347.npz") as data:
        inputs = data["x"].astype(np.float32)
        labels = data["y"].astype(np.int64)
        is_test = data["official_test"].astype(bool)
        subject = data["subject"].astype(np.int64)
    said = _said("har", inputs, labels, np.flatnonzero(~is_test), epochs=12)
    accuracy = float((said == labels)[is_test].mean())
    return Task(inputs, said, (5,), subject, accuracy, _moments(inputs))


@lru_cache
def har_turned() -> tuple[Task, NDArray[Any]]:
    """UCI HAR with a model that knows the phone as it was worn and turned by a quarter.

    Needed where somebody sits or stands, upright.

    Returns:
        The windows as recorded with what the model says of them, and (n, 128, 9) the same
        windows as a phone would record them that is turned about its third axis.
    """
    task, turned = har(), quarter_turned(har().inputs)
    with np.load(_folder() / "uci_har" / "uci_har_inertial_5347.npz") as data:
        labels, is_test = data["y"].astype(np.int64), data["official_test"].astype(bool)
    rows = np.flatnonzero(~np.tile(is_test, 2))
    both, truth = np.concatenate([task.inputs, turned]), np.tile(labels, 2)
    said = _said("har-turned", both, truth, rows, epochs=8)
    accuracy = float((said == truth)[np.tile(is_test, 2)].mean())
    return Task(both, said, (3, 4), np.tile(task.group, 2), accuracy, task.summary), turned


def quarter_turned(windows: NDArray[Any]) -> NDArray[Any]:
    """(n, time, 9) three signals of three axes each, turned about the third."""
    made = windows.copy()
    for first in range(0, windows.shape[2], 3):
        made[:, :, first] = windows[:, :, first + 1]
        made[:, :, first + 1] = -windows[:, :, first]
    return made


@lru_cache
def users() -> Task:
    """UCI HAR: who moves, of the windows whose wearer is known; needed for every fourth."""
    with np.load(_folder() / "uci_har" / "uci_har_inertial_5347.npz") as data:
        is_known_who = data["subject"] > 0
        inputs = data["x"][is_known_who].astype(np.float32)
        subject = data["subject"][is_known_who].astype(np.int64)
    names, labels = np.unique(subject, return_inverse=True)
    labels = labels.astype(np.int64)
    is_known = np.random.default_rng(0).random(len(labels)) < 0.5
    said = _said("users", inputs, labels, np.flatnonzero(is_known), epochs=12)
    accuracy = float((said == labels)[~is_known].mean())
    wanted = tuple(range(0, len(names), 4))
    return Task(inputs, said, wanted, subject, accuracy, _moments(inputs))


@lru_cache
def digits() -> Task:
    """FSDD: spoken digits; needed for yes and no, here 1 and 0; the model knows a half."""
    with np.load(_folder() / "fsdd" / "fsdd_logmel_3000.npz") as data:
        inputs = data["x"].astype(np.float32).transpose(0, 2, 1) / 255.0  # time first
        labels, speaker = data["digit"].astype(np.int64), data["speaker"]
    group = 1 + np.unique(speaker, return_inverse=True)[1].reshape(-1).astype(np.int64)
    is_known = np.random.default_rng(0).random(len(labels)) < 0.5
    said = _said("digits", inputs, labels, np.flatnonzero(is_known), epochs=12)
    accuracy = float((said == labels)[~is_known].mean())
    return Task(inputs, said, (0, 1), group, accuracy, _moments(inputs))


@lru_cache
def radio() -> Task:
    """Generated signals of eight modulations (`filter_radio`); needed for the analogue ones."""
    from benchmarks.filter_radio import ANALOGUE, generated

    inputs, labels, level = generated(4000, seed=0)
    is_known = np.random.default_rng(0).random(len(labels)) < 0.5
    said = _said("radio", inputs, labels, np.flatnonzero(is_known), epochs=12)
    accuracy = float((said == labels)[~is_known].mean())
    return Task(inputs, said, ANALOGUE, level, accuracy, _moments(np.abs(inputs)))


@lru_cache
def wifi() -> Task:
    """WiFi channel state: needed where somebody moves, which is all but sitting still."""
    with np.load(_folder() / "wifi_csi" / "wifi_csi_esp32_809.npz") as data:
        inputs = data["x"].astype(np.float32).transpose(0, 2, 1)  # time first
        labels, day = data["y"].astype(np.int64), data["domain"].astype(np.int64)
    said = _said("wifi", inputs, labels, np.arange(len(labels)), epochs=40)
    return Task(
        inputs, said, tuple(range(2, 10)), day, float((said == labels).mean()), _moments(inputs)
    )


@lru_cache
def esc10() -> Task:
    """ESC-10: needed for a crying baby, a sneeze, a fire; fold 4 is absent."""
    with np.load(_folder() / "esc10_logmel" / "esc10_logmel_320.npz") as data:
        inputs = data["x"].astype(np.float32).transpose(0, 2, 1) / 255.0  # time first
        classes, labels = np.unique(data["y"], return_inverse=True)
        fold = data["fold"].astype(np.int64)
    wanted = tuple(int(np.flatnonzero(classes == one)[0]) for one in (12, 20, 21))
    labels = labels.astype(np.int64)
    said = _said("esc10", inputs, labels, np.arange(len(labels)), epochs=40)
    return Task(inputs, said, wanted, fold, float((said == labels).mean()), _moments(inputs))


@lru_cache
def persons() -> Task:
    """WNUT17: needed where a sentence names a person; the model knows the training part."""
    with gzip.open(_folder() / "wnut17" / "wnut17.json.gz", "rt", encoding="utf-8") as stream:
        parts = json.load(stream)
    sentences = [one for part in ("train", "dev", "test") for one in parts[part]]
    labels = np.array([any("person" in tag for tag in tags) for _, tags in sentences], np.int64)
    part = np.repeat([0, 1, 2], [len(parts[name]) for name in ("train", "dev", "test")])
    return _texts([" ".join(tokens) for tokens, _ in sentences], labels, part, part == 0)


@lru_cache
def sentiment() -> Task:
    """Sentences of three domains: needed where they praise; the model knows a half."""
    path = _folder() / "sentiment_sentences" / "sentiment_3domains.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        domains = json.load(stream)
    sentences = [one for name in sorted(domains) for one in domains[name]]
    domain = np.repeat(np.arange(len(domains)), [len(domains[one]) for one in sorted(domains)])
    labels = np.array([label for _, label in sentences], np.int64)
    is_known = np.random.default_rng(0).random(len(labels)) < 0.5
    return _texts([text for text, _ in sentences], labels, domain, is_known)


def _texts(texts: list[str], labels: Rows, group: Rows, is_known: NDArray[np.bool_]) -> Task:
    import torch
    from torch import nn

    inputs = hashed(texts)
    values, truth = torch.from_numpy(inputs), torch.from_numpy(labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.EmbeddingBag(VOCABULARY, 64, padding_idx=0), nn.Dropout(0.5), nn.Linear(64, 2)
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        rows = torch.from_numpy(np.flatnonzero(is_known))
        for _ in range(12):
            for batch in torch.split(rows[torch.randperm(len(rows))], 32):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(values[batch]), truth[batch]).backward()
                optimizer.step()
        with torch.no_grad():
            said = np.asarray(model.eval()(values).argmax(1).numpy(), np.int64)
    accuracy = float((said == labels)[~is_known].mean())
    return Task(inputs, said, (1,), group, accuracy, _words(inputs))


def _words(inputs: NDArray[np.int64]) -> NDArray[np.float32]:
    """How often each of the 300 most frequent words is in a text."""
    frequent = np.bincount(inputs.ravel(), minlength=VOCABULARY)[1:].argsort()[::-1][:300] + 1
    counts = [(inputs == word).sum(axis=1) for word in frequent]
    return np.stack(counts, axis=1).astype(np.float32)


def _moments(inputs: NDArray[Any]) -> NDArray[np.float32]:
    """Mean and deviation of every signal over time."""
    return np.concatenate([inputs.mean(axis=1), inputs.std(axis=1)], axis=1)


def _said(name: str, inputs: NDArray[Any], labels: Rows, rows: Rows, *, epochs: int) -> Rows:
    """What a task's model says of all inputs, kept from one run to the next."""
    kept = ROOT / "build" / "filters" / f"said-{name}.npy"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, _model(inputs, labels, rows, epochs=epochs))
    return np.asarray(np.load(kept, allow_pickle=False), np.int64)


def _model(inputs: NDArray[Any], labels: Rows, rows: Rows, *, epochs: int) -> Rows:
    """What a network with convolutions over time, trained on some rows, says of all."""
    import torch
    from torch import nn

    channels, classes = inputs.shape[2], int(labels.max()) + 1
    scaled = (inputs - inputs.mean((0, 1))) / (inputs.std((0, 1)) + 1e-6)
    values, truth = torch.from_numpy(scaled).permute(0, 2, 1), torch.from_numpy(labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv1d(channels, 48, 7, stride=2, padding=3),
            nn.ReLU(),
            nn.Conv1d(48, 96, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv1d(96, 96, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(4),
            nn.Flatten(),
            nn.Linear(384, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(epochs):
            order = torch.from_numpy(rows)[torch.randperm(len(rows))]
            for batch in torch.split(order, 32):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(values[batch]), truth[batch])
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            said = model.eval()(values).argmax(1).numpy()
    return np.asarray(said, np.int64)


def halves(count: int, seed: int) -> tuple[Rows, Rows]:
    """The thesis's split: one half to learn from, one to judge by, at random."""
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 2], order[count // 2 :]


def by_group(group: Rows, held: Sequence[int]) -> tuple[Rows, Rows]:
    """Rows of all other groups, and of those held out; what is of no known group is in none."""
    is_held = np.isin(group, held)
    return np.flatnonzero(~is_held & (group != 0)), np.flatnonzero(is_held)


def some_groups(group: Rows, share: float, seed: int) -> list[int]:
    """A share of the groups, drawn at random."""
    names = np.unique(group[group != 0])
    drawn = np.random.default_rng(seed).permutation(names)
    return [int(one) for one in drawn[: max(1, round(share * len(names)))]]
