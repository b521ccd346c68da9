"""What a token takes when the cloud is far away, with and without guesses sent ahead."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from safetensors.numpy import load_file, save_file

from benchmarks.checkpoints import real_model
from benchmarks.clouds import device_with
from benchmarks.delayed_wire import delayed
from benchmarks.harness import Case, Effort, case
from triparty.device import Device, GenerationOptions
from triparty.device.home import Home
from triparty.device.inference.draft_model import DraftModel
from triparty.device.inference.traffic import Traffic

MODEL = "stories"
GUESSES = 8
DRAFT_LAYERS = 4
# Milliseconds each way, and what the thesis has there.
DELAYS: Mapping[int, str] = {0: "12 ms", 10: "30 ms", 250: "510 ms"}
WAYS = ("no guesses", "lookup", "draft model")


@dataclass(frozen=True)
class Task:
    """What is continued, and how.

    Attributes:
        prompt: begins the text.
        lead: tokens that the model adds to the prompt before anything is measured.
        temperature: of the answer.
    """

    prompt: str
    lead: int
    temperature: float


TASKS: Mapping[str, Task] = {
    "a text that repeats itself": Task(
        "Once upon a time, Zyxwolf met a quizzical brontosaurus", lead=130, temperature=0.0
    ),
    "a text that does not": Task(
        "Once upon a time, there was a little girl", lead=0, temperature=0.8
    ),
}


@dataclass(frozen=True)
class Figure:
    """One answer.

    Attributes:
        token_ms: between two tokens, on average.
        right: of the guesses, or None if there were none.
    """

    token_ms: float
    right: float | None


@cache
def _figures(quick: bool) -> dict[tuple[str, int, str], list[Figure]]:
    """All figures, by task, delay and way; the ways take turns."""
    found: defaultdict[tuple[str, int, str], list[Figure]] = defaultdict(list)
    source = real_model("stories260K")
    with (
        tempfile.TemporaryDirectory() as name,
        device_with(source, Path(name), name=MODEL) as device,
    ):
        draft = DraftModel.load(
            _first_layers(source, Path(name) / "draft"), tokenizer=device.open(MODEL).tokenizer
        )
        home = Path(name) / "device"
        questions = {task: _question(device, given) for task, given in TASKS.items()}
        for delay in DELAYS:
            runs = 1 if quick or delay > 100 else 5
            with _far(home, delay_s=delay / 1000):
                for task, run in ((task, run) for task in TASKS for run in range(runs)):
                    for way in WAYS:
                        options = GenerationOptions(
                            max_tokens=6 if quick else 33,
                            ignore_eos=True,
                            temperature=TASKS[task].temperature,
                            seed=run,
                            speculate=0 if way == WAYS[0] else GUESSES,
                            draft=draft if way == WAYS[2] else None,
                        )
                        found[task, delay, way].append(
                            _measured(device, questions[task], options)
                        )
    return dict(found)


def _question(device: Device, task: Task) -> list[int]:
    opened = device.open(MODEL)
    ids = opened.tokenizer.encode(task.prompt).ids
    if not task.lead:
        return ids
    options = GenerationOptions(max_tokens=task.lead, ignore_eos=True, speculate=63)
    return [*ids, *device.generate(MODEL, ids, options=options).token_ids]


def _measured(device: Device, ids: list[int], options: GenerationOptions) -> Figure:
    traffic = Traffic()
    parts = device.stream(MODEL, ids, options=options, traffic=traffic)
    *times, _ = (time.perf_counter() for _ in parts)  # the last is the whole
    token_ms = 1000 * (times[-1] - times[0]) / (len(times) - 1)
    right = 1 - traffic.wrong_guesses / traffic.guesses if traffic.guesses else None
    return Figure(token_ms, right)


@contextmanager
def _far(home: Path, *, delay_s: float) -> Iterator[None]:
    """While the block runs, a device's cloud is at the other end of a slow wire."""
    access = Home(home).access()
    with delayed(urlsplit(access.url).port or 0, delay_s=delay_s) as port:
        replace(access, url=f"http://127.0.0.1:{port}").save(home)
        try:
            yield
        finally:
            access.save(home)


def _first_layers(source: Path, folder: Path) -> Path:
    """A checkpoint of the first layers of a LLaMA: a smaller model with the same tokens."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["num_hidden_layers"] = DRAFT_LAYERS
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for file in folder.glob("*.safetensors"):
        kept = {
            tensor: value for tensor, value in load_file(file).items() if not _is_behind(tensor)
        }
        save_file(kept, file, metadata={"format": "pt"})
    return folder


def _is_behind(tensor: str) -> bool:
    _, _, rest = tensor.partition("layers.")
    return bool(rest) and int(rest.partition(".")[0]) >= DRAFT_LAYERS


def _cases(task: str, delay: int, way: str) -> Iterator[Case]:
    where = f"{task}, {way}, {delay} ms each way"

    @case(
        f"a token of {where}",
        unit="ms",
        better="lower",
        reference=f"thesis, LLaMA2-7b on an A100: {DELAYS[delay]}",
    )
    def token(effort: Effort) -> Iterator[float]:
        yield from (figure.token_ms for figure in _figures(effort.quick)[task, delay, way])

    yield token
    if delay == 0 and way != WAYS[0]:

        @case(f"guesses that were right, {task}, {way}", unit="share", better="higher")
        def right(effort: Effort) -> Iterator[float]:
            found = _figures(effort.quick)[task, delay, way]
            yield from (figure.right or 0.0 for figure in found)

        yield right


CASES: tuple[Case, ...] = tuple(
    one
    for task in TASKS
    for delay in DELAYS
    for way in WAYS
    for one in _cases(task, delay, way)
)
