"""`CostModel`: CPU milliseconds of decoding a packet, from its bytes, learnt while decoding.

The cost is a + b * kilobytes per codec, picture size, and whether the picture is intra: an
intra picture costs more to begin with and less per byte. Fitted apart they explain more of the
measured time than one line through both, and far more than a constant per type
(`benchmarks/gating_decode.py` has the figures). Each line is fitted by recursive least squares
with forgetting, so that it follows a machine that gets busier; a measurement far off the line
(a page fault, a cache that others emptied) pulls no harder than one at the edge of the usual
(the weights of Huber). Before the first measurement the line is that of the codec on the
machine where the guesses were measured, scaled by pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Milliseconds = NDArray[np.float64]

FORGETTING = 0.998
"""Weight of a measurement after the next one of its kind; half of it is gone after 350."""
PRIOR_SPREAD = 1.0
"""How far off the first guess may well be, as a share of itself."""
NOISE = 0.2
"""Usual error of one measurement, as a share of the cost."""
HUBER = 3.0
"""Usual errors beyond which a measurement pulls no harder."""
SMALLEST_SHARE = 0.05
"""No estimate is less than this share of the first guess."""


class Guess(NamedTuple):
    """A line before any measurement.

    Attributes:
        per_megapixel: ms of the codec for each million pixels, whatever the bytes.
        per_kilobyte: ms for each 1000 bytes.
    """

    per_megapixel: float
    per_kilobyte: float


# Of intra and of other pictures, measured at 1080p and 360p with FFmpeg 8.1 on one core.
GUESSES = {
    "h264": (Guess(1.6, 0.06), Guess(1.1, 0.11)),
    "hevc": (Guess(3.5, 0.05), Guess(1.2, 0.30)),
    "vp9": (Guess(1.3, 0.10), Guess(0.8, 0.18)),
    "av1": (Guess(1.9, 0.05), Guess(0.2, 0.35)),
    "mpeg4": (Guess(1.2, 0.02), Guess(0.25, 0.06)),
    "mjpeg": (Guess(0.7, 0.02), Guess(0.7, 0.02)),
    "jpeg2000": (Guess(14.0, 0.20), Guess(14.0, 0.20)),
}
UNKNOWN = (Guess(3.5, 0.10), Guess(1.2, 0.30))


class Kind(NamedTuple):
    """What shares one line."""

    codec: str
    width: int
    height: int
    intra: bool


class Line(NamedTuple):
    """What packets of a kind cost.

    Attributes:
        ms: of a packet.
        ms_per_kilobyte: and more for its size.
        packets: that it was learnt from.
    """

    ms: float
    ms_per_kilobyte: float
    packets: int


@dataclass(slots=True)
class _Line:
    """One line in units of its first guess: cost = guess_a * a + guess_b * b * kilobytes.

    Attributes:
        guess_a: ms.
        guess_b: ms per kilobyte.
        a: 1 before any measurement.
        b: 1 before any measurement.
        aa: variance of a.
        ab: covariance.
        bb: variance of b.
        usual: running mean of |error| / estimate.
        count: measurements so far.
    """

    guess_a: float
    guess_b: float
    a: float = 1.0
    b: float = 1.0
    aa: float = PRIOR_SPREAD**2
    ab: float = 0.0
    bb: float = PRIOR_SPREAD**2
    usual: float = NOISE
    count: int = 0

    def estimate(self, kilobytes: Milliseconds) -> Milliseconds:
        """CPU ms of packets by their size."""
        ms = self.guess_a * self.a + self.guess_b * self.b * kilobytes
        least = SMALLEST_SHARE * (self.guess_a + self.guess_b * kilobytes)
        result: Milliseconds = np.maximum(ms, least)
        return result

    def learn(self, kilobytes: float, ms: float) -> None:
        """Takes in one measurement.

        One step of recursive least squares, x = (guess_a, guess_b * kilobytes).
        """
        x, y = self.guess_a, self.guess_b * kilobytes
        expected = max(self.a * x + self.b * y, SMALLEST_SHARE * (x + y))
        error = ms - (self.a * x + self.b * y)
        share = abs(error) / expected
        edge = HUBER * self.usual
        weight = min(1.0, edge / share) if share > 0 else 1.0
        self.usual += 0.05 * (min(share, 2 * edge) - self.usual)
        self.usual = max(self.usual, 1e-3)
        self._forget()
        gain_a, gain_b = self.aa * x + self.ab * y, self.ab * x + self.bb * y
        noise = (NOISE * (x + y)) ** 2 / weight  # by the guess: old and new weigh alike
        scale = 1.0 / (noise + x * gain_a + y * gain_b)
        self.a += gain_a * scale * error
        self.b += gain_b * scale * error
        self.aa -= gain_a * gain_a * scale
        self.ab -= gain_a * gain_b * scale
        self.bb -= gain_b * gain_b * scale
        self.count += 1

    def _forget(self) -> None:
        """Widens what is known, but never beyond the first guess."""
        if max(self.aa, self.bb) < PRIOR_SPREAD**2 * FORGETTING:
            self.aa /= FORGETTING
            self.ab /= FORGETTING
            self.bb /= FORGETTING


class CostModel:
    """Estimates of decoding cost for streams of all codecs and sizes of one machine."""

    def __init__(self) -> None:
        """Knows the first guesses only."""
        self._lines: dict[Kind, _Line] = {}

    def estimate(
        self,
        codec: str,
        width: int,
        height: int,
        sizes: ArrayLike,
        intra: ArrayLike = False,
    ) -> Milliseconds:
        """CPU ms of decoding each of n packets of one stream, or of like ones.

        Args:
            codec: FFmpeg's name.
            width: pixels.
            height: pixels.
            sizes: (n,) bytes.
            intra: (n,) or one for all: whether the picture is intra.
        """
        kilobytes = np.asarray(sizes, dtype=np.float64) / 1000
        inter = self._line(Kind(codec, width, height, False)).estimate(kilobytes)
        whole = self._line(Kind(codec, width, height, True)).estimate(kilobytes)
        result: Milliseconds = np.where(np.asarray(intra, dtype=np.bool_), whole, inter)
        return result

    def learn(
        self,
        codec: str,
        width: int,
        height: int,
        sizes: ArrayLike,
        intra: ArrayLike,
        cpu_ms: ArrayLike,
    ) -> None:
        """Takes in what decoding n packets cost.

        Args:
            codec: FFmpeg's name.
            width: pixels.
            height: pixels.
            sizes: (n,) bytes.
            intra: (n,) whether the picture is intra.
            cpu_ms: (n,) measured, at least 0.
        """
        columns = (np.atleast_1d(np.asarray(one)) for one in (sizes, intra, cpu_ms))
        for size, is_intra, ms in zip(*columns, strict=True):
            kind = Kind(codec, width, height, bool(is_intra))
            self._line(kind).learn(float(size) / 1000, float(ms))

    def lines(self) -> dict[Kind, Line]:
        """All lines learnt."""
        return {
            kind: Line(line.guess_a * line.a, line.guess_b * line.b, line.count)
            for kind, line in self._lines.items()
            if line.count
        }

    def _line(self, kind: Kind) -> _Line:
        if kind not in self._lines:
            of_intra, of_inter = GUESSES.get(kind.codec, UNKNOWN)
            guess = of_intra if kind.intra else of_inter
            megapixels = max(kind.width * kind.height, 1) / 1e6
            self._lines[kind] = _Line(guess.per_megapixel * megapixels, guess.per_kilobyte)
        return self._lines[kind]
