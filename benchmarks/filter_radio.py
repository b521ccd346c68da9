"""Radio signals of eight modulations, generated: symbols, filters, noise, and an untuned receiver.

No recorded set is at hand, so nothing of a real channel but white noise, a random phase and a
small error of frequency is in them. The levels of noise are those of the thesis's set from 0 dB
on; its figure (40.9 of 59.9) is of other signals.
"""  # noqa: E501 - one line says what it is

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LENGTH, SYMBOL = 128, 8
LEVELS_DB = (0, 4, 8, 12)
KINDS = ("BPSK", "QPSK", "8PSK", "PAM4", "QAM16", "FSK", "AM", "FM")
ANALOGUE = (6, 7)
Complex = NDArray[np.complex128]


def generated(
    count: int, *, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Signals, kinds and levels.

    Returns:
        (count, 128, 2) in phase and in quadrature, (count,) number in `KINDS`, (count,) ratio
        of signal to noise in dB.
    """
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, len(KINDS), count)
    levels = rng.choice(LEVELS_DB, count)
    made = np.empty((count, LENGTH, 2), np.float32)
    for row, (kind, level) in enumerate(zip(kinds, levels, strict=True)):
        signal = _signal(KINDS[kind], rng)
        signal /= np.sqrt(np.mean(np.abs(signal) ** 2))
        error = rng.uniform(-0.005, 0.005) * np.arange(LENGTH) + rng.random()
        noise = rng.normal(size=(2, LENGTH)) * np.sqrt(0.5 * 10.0 ** (-level / 10.0))
        heard = signal * np.exp(2j * np.pi * error) + noise[0] + 1j * noise[1]
        made[row] = np.stack([heard.real, heard.imag], axis=1)
    return made, kinds.astype(np.int64), levels.astype(np.int64)


def _signal(kind: str, rng: np.random.Generator) -> Complex:
    if kind == "AM":
        return (1.0 + 0.7 * _voice(rng)).astype(np.complex128)
    if kind == "FM":
        return np.exp(2j * np.pi * np.cumsum(0.06 * _voice(rng)))
    count = LENGTH // SYMBOL + 2
    if kind == "FSK":
        steps = np.repeat(rng.choice([-1.0, 1.0], count), SYMBOL)[:LENGTH]
        return np.exp(2j * np.pi * np.cumsum(steps * 0.06))
    return _shaped(_symbols(kind, count, rng))


def _symbols(kind: str, count: int, rng: np.random.Generator) -> Complex:
    """(count,) points of a constellation."""
    if kind == "PAM4":
        return rng.choice([-3.0, -1.0, 1.0, 3.0], count).astype(np.complex128)
    if kind == "QAM16":
        parts = rng.choice([-3.0, -1.0, 1.0, 3.0], (2, count))
        return np.asarray(parts[0] + 1j * parts[1])
    points = {"BPSK": 2, "QPSK": 4, "8PSK": 8}[kind]
    return np.asarray(np.exp(2j * np.pi * rng.integers(0, points, count) / points))


def _shaped(symbols: Complex) -> Complex:
    """(128,) symbols as smooth pulses, beginning anywhere in the first."""
    spread = np.zeros(len(symbols) * SYMBOL, np.complex128)
    spread[::SYMBOL] = symbols
    pulse = np.hanning(2 * SYMBOL + 1)
    return np.convolve(spread, pulse, "same")[SYMBOL // 2 : SYMBOL // 2 + LENGTH]


def _voice(rng: np.random.Generator) -> NDArray[np.float64]:
    """(128,) a slow signal between about -1 and 1."""
    times = np.arange(LENGTH) / LENGTH
    tones = [np.sin(2 * np.pi * (rng.uniform(1, 8) * times + rng.random())) for _ in range(3)]
    return np.asarray(sum(tones) / 2.0)
