"""Generated films of a building: people walk through rooms, cars come to a yard. NumPy alone.

For trying things out without cameras: a developer trains a small detector on pictures of
them, a device plays films of them. Nothing in here was filmed. A scene is a wall with furniture
or markings, drawn from its seed; who is in it moves along a straight line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 320, 180
LABELS = ("person", "car")
NOISE = 5.0
Picture = NDArray[np.uint8]
"""(HEIGHT, WIDTH, 3) uint8 RGB."""


@dataclass(frozen=True)
class Visit:
    """Somebody or something that comes, and goes.

    Attributes:
        label: a number of `LABELS`.
        begin: of the film's seconds.
        end: the same.
        start: where its middle is at the beginning, (x, y) in shares of the picture.
        goal: where its middle is at the end.
        height: in shares of the picture's.
        seed: of its colours.
    """

    label: int
    begin: float
    end: float
    start: tuple[float, float]
    goal: tuple[float, float]
    height: float
    seed: int = 0

    def box(self, time: float) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom in shares of the picture, cut at its edges; None outside."""
        if not self.begin <= time < self.end:
            return None
        way = (time - self.begin) / (self.end - self.begin)
        x = self.start[0] + way * (self.goal[0] - self.start[0])
        y = self.start[1] + way * (self.goal[1] - self.start[1])
        half = self.height * _SHAPES[self.label] * HEIGHT / WIDTH / 2
        left, right = max(0.0, x - half), min(1.0, x + half)
        top, bottom = max(0.0, y - self.height / 2), min(1.0, y + self.height / 2)
        return (left, top, right, bottom) if left < right and top < bottom else None


_SHAPES = (0.38, 2.2)
"""Width over height, by label."""


def film(
    visits: Sequence[Visit], *, seconds: float, rate: int, seed: int = 0
) -> Iterator[Picture]:
    """The pictures of a film, in order.

    Args:
        visits: who is in it.
        seconds: its length.
        rate: pictures a second.
        seed: of the room and the camera's noise.
    """
    rng = np.random.default_rng(seed)
    empty = room(rng)
    for number in range(round(seconds * rate)):
        yield _noisy(_with(empty, visits, number / rate), rng)


def picture(
    rng: np.random.Generator,
) -> tuple[Picture, list[tuple[int, tuple[float, float, float, float]]]]:
    """One picture of a room of its own with up to three things in it, and what they are.

    Returns:
        The picture; label and box of each thing, as `Visit.box` says it. None hides another.
    """
    visits: list[Visit] = []
    boxes: list[tuple[int, tuple[float, float, float, float]]] = []
    for _ in range(int(rng.integers(0, 4))):
        label = int(rng.integers(len(LABELS)))
        height = float(rng.uniform(0.3, 0.6) if label == 0 else rng.uniform(0.16, 0.3))
        place = (float(rng.uniform(0.03, 0.97)), float(rng.uniform(0.3, 0.85)))
        one = Visit(label, 0.0, 1.0, place, place, height, seed=int(rng.integers(1 << 31)))
        box = one.box(0.0)
        if box is not None and not any(_touch(box, other) for _, other in boxes):
            visits.append(one)
            boxes.append((label, box))
    return _noisy(_with(room(rng), visits, 0.0), rng), boxes


def room(rng: np.random.Generator) -> Picture:
    """An empty place: a wall, a floor, and things that stand about."""
    level = rng.uniform(70, 150, 3)
    shade = np.linspace(1.0, rng.uniform(0.7, 1.0), WIDTH)[None, :, None]
    made = np.ones((HEIGHT, WIDTH, 3)) * level * shade
    floor = int(HEIGHT * rng.uniform(0.55, 0.75))
    made[floor:] *= rng.uniform(0.6, 0.85)
    for _ in range(int(rng.integers(2, 6))):
        width, height = rng.integers(12, 70), rng.integers(8, 45)
        left, top = rng.integers(0, WIDTH - width), rng.integers(0, HEIGHT - height)
        made[top : top + height, left : left + width] = rng.uniform(50, 170, 3)
    return np.clip(made, 0, 255).astype(np.uint8)


def _with(empty: Picture, visits: Sequence[Visit], time: float) -> Picture:
    made = empty.copy()
    for one in visits:
        if one.box(time) is not None:
            _draw(made, one, time)
    return made


def _draw(into: Picture, one: Visit, time: float) -> None:
    """Draws a person (head, body, legs) or a car (body, roof, wheels) where it is then."""
    way = (time - one.begin) / (one.end - one.begin)
    x = one.start[0] + way * (one.goal[0] - one.start[0])
    y = one.start[1] + way * (one.goal[1] - one.start[1])
    tall = one.height * HEIGHT
    wide = tall * _SHAPES[one.label]
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    # Shares of the thing's own box.
    across = (columns + 0.5 - x * WIDTH) / wide + 0.5
    down = (rows + 0.5 - y * HEIGHT) / tall + 0.5
    rng = np.random.default_rng(one.seed)
    main, second = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    skin = np.array([225.0, 180.0, 150.0]) * rng.uniform(0.5, 1.05)
    if one.label == 0:
        step = 0.08 * np.sin(6 * time + one.seed)
        _fill(into, _inside(across, down, 0.08, 0.2, 0.92, 0.6), main)
        _fill(into, _inside(across, down, 0.12 - step, 0.6, 0.46, 1.0), second)
        _fill(into, _inside(across, down, 0.54 + step, 0.6, 0.88, 1.0), second)
        _fill(into, ((across - 0.5) / 0.34) ** 2 + ((down - 0.1) / 0.1) ** 2 <= 1, skin)
    else:
        _fill(into, _inside(across, down, 0.0, 0.4, 1.0, 0.85), main)
        _fill(into, _inside(across, down, 0.2, 0.0, 0.78, 0.4), main * 0.8)
        _fill(into, _inside(across, down, 0.26, 0.08, 0.72, 0.36), np.array([190.0, 210, 225]))
        for middle in (0.22, 0.78):
            wheel = ((across - middle) * wide) ** 2 + ((down - 0.82) * tall) ** 2
            _fill(into, wheel <= (0.18 * tall) ** 2, np.array([20.0, 20, 20]))


def _inside(
    across: NDArray[np.float64],
    down: NDArray[np.float64],
    left: float,
    top: float,
    right: float,
    bottom: float,
) -> NDArray[np.bool_]:
    found = (across >= left) & (across < right) & (down >= top) & (down < bottom)
    return np.asarray(found)


def _fill(into: Picture, where: NDArray[np.bool_], colour: NDArray[np.float64]) -> None:
    into[where] = np.clip(colour, 0, 255).astype(np.uint8)


def _noisy(clean: Picture, rng: np.random.Generator) -> Picture:
    noise = rng.normal(0, NOISE, (HEIGHT, WIDTH, 1))
    return np.clip(clean + noise, 0, 255).astype(np.uint8)


def _touch(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> bool:
    is_apart = one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
    return not is_apart
