"""The cost model learns lines from noisy measurements and forgets old ones."""

from __future__ import annotations

import numpy as np
import pytest
from gated_decoding import open_stream
from video_encodings import Encodings

from triparty.device.streams.cost import CostModel, Kind
from triparty.device.streams.decoder import StreamDecoder
from triparty.device.streams.packets import PictureType
from triparty.device.streams.reachability import Closure

SIZE = ("h264", 1280, 720)


def _measure(
    count: int, a: float, b: float, rng: np.random.Generator, noise: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    sizes = rng.lognormal(9, 0.8, count)
    return sizes, (a + b * sizes / 1000) * rng.lognormal(0, noise, count)


def test_the_first_guess_grows_with_pixels_and_bytes() -> None:
    model = CostModel()
    small, large = (
        model.estimate("h264", *size, [1000, 50_000]) for size in ((352, 288), (1920, 1080))
    )
    assert 0 < small[0] < small[1] < large[1]
    assert 1.0 < large[0] < 5.0
    assert model.estimate("theora", 640, 480, 1000) > 0
    assert model.lines() == {}


def test_intra_pictures_have_their_own_line() -> None:
    rng = np.random.default_rng(0)
    model = CostModel()
    for intra, a, b in ((True, 6.0, 0.03), (False, 1.0, 0.2)):
        sizes, ms = _measure(400, a, b, rng)
        model.learn(*SIZE, sizes, np.full(400, intra), ms)
    for intra, a, b in ((True, 6.0, 0.03), (False, 1.0, 0.2)):
        found_a, found_b, count = model.lines()[Kind(*SIZE, intra)]
        assert found_a == pytest.approx(a, rel=0.1)
        assert found_b == pytest.approx(b, rel=0.15, abs=0.02)
        assert count == 400
    assert model.estimate(*SIZE, [10_000, 10_000], [True, False]) == pytest.approx(
        [6.3, 3.0], rel=0.1
    )


def test_sums_are_learnt_within_a_few_percent_after_a_few_dozen_packets() -> None:
    for seed, scale in enumerate((0.3, 1.0, 4.0)):
        rng = np.random.default_rng(seed)
        model = CostModel()
        sizes, ms = _measure(60, 1.2 * scale, 0.1 * scale, rng)
        model.learn(*SIZE, sizes, np.zeros(60), ms)
        sizes, ms = _measure(2000, 1.2 * scale, 0.1 * scale, rng)
        assert model.estimate(*SIZE, sizes).sum() == pytest.approx(ms.sum(), rel=0.08)


def test_outliers_do_not_carry_the_line_away() -> None:
    rng = np.random.default_rng(1)
    model = CostModel()
    sizes, ms = _measure(600, 1.0, 0.1, rng)
    ms[rng.random(600) < 0.03] *= 50
    model.learn(*SIZE, sizes, np.zeros(600), ms)
    assert model.estimate(*SIZE, 10_000) == pytest.approx(2.0, rel=0.2)


def test_a_machine_that_gets_slower_is_followed() -> None:
    rng = np.random.default_rng(2)
    model = CostModel()
    for factor in (1.0, 3.0):
        sizes, ms = _measure(1500, 1.0 * factor, 0.1 * factor, rng)
        model.learn(*SIZE, sizes, np.zeros(1500), ms)
        assert model.estimate(*SIZE, 10_000) == pytest.approx(2.0 * factor, rel=0.1)


def test_equal_sizes_for_ever_leave_the_line_sane() -> None:
    """Nothing is learnt about the slope then, and nothing is unlearnt."""
    rng = np.random.default_rng(3)
    model = CostModel()
    model.learn(*SIZE, np.full(20_000, 8000.0), np.zeros(20_000), rng.normal(2, 0.1, 20_000))
    assert model.estimate(*SIZE, 8000) == pytest.approx(2.0, rel=0.05)
    assert 1.0 < float(model.estimate(*SIZE, 16_000)) < 4.0


def test_a_decoders_own_measurements_are_learnt(encodings: Encodings) -> None:
    stream = open_stream(encodings.path("h264-main-b"))
    decoder = StreamDecoder(stream.codec, stream.extradata)
    model = CostModel()
    for packet in stream.packets:
        decoder.decode(Closure((packet,)))
        spent = decoder.spent[0]
        intra = packet.picture.type is PictureType.I
        model.learn(stream.codec, 256, 144, packet.size, intra, spent.cpu_ms)
    sizes = [packet.size for packet in stream.packets]
    intra = [packet.picture.type is PictureType.I for packet in stream.packets]
    estimates = model.estimate(stream.codec, 256, 144, sizes, intra)
    assert estimates.shape == (60,)
    assert (estimates > 0).all()
    assert {kind.intra: count for kind, (_, _, count) in model.lines().items()} == {
        True: sum(intra),
        False: 60 - sum(intra),
    }
