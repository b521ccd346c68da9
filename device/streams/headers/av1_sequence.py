"""AV1's sequence header: only what frame headers need (AV1 specification, 5.5)."""

from __future__ import annotations

from dataclasses import dataclass

from triparty.device.streams.bits import Bits

SELECT = 2  # the frame header says


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence header.

    Attributes:
        still: whether every picture is a keyframe with a reduced header.
        time_bits: of a shown picture's presentation time, 0 if it has none.
        points: for each operating point, its `operating_point_idc` and the bits of a buffer
            removal time (0 if it has none); empty if there is no decoder model.
        target: `operating_point_idc` of the first point, which decoders choose.
        id_bits: of `current_frame_id`, 0 if there are no ids.
        delta_bits: of `delta_frame_id_minus_1`.
        screen: `seq_force_screen_content_tools`.
        whole_vectors: `seq_force_integer_mv`.
        order_bits: of an order hint, 0 if there is none.
    """

    still: bool
    time_bits: int
    points: tuple[tuple[int, int], ...]
    target: int
    id_bits: int
    delta_bits: int
    screen: int
    whole_vectors: int
    order_bits: int


def sequence_header(bits: Bits) -> Sequence:
    """Reads a sequence header.

    Args:
        bits: after the OBU header.

    Raises:
        PacketError: it ends early.
    """
    bits.take(4)
    still = bits.flag()
    points: tuple[tuple[int, int], ...] = ()
    time_bits = target = 0
    if still:
        bits.take(5)
    else:
        time_bits, target, points = _operation(bits)
    width_bits, height_bits = bits.take(4), bits.take(4)
    bits.take(width_bits + 1)
    bits.take(height_bits + 1)
    id_bits = delta_bits = 0
    if not still and bits.flag():
        delta_bits = bits.take(4) + 2
        id_bits = bits.take(3) + delta_bits + 1
    bits.take(3)
    screen, whole_vectors, order_bits = SELECT, SELECT, 0
    if not still:
        bits.take(4)
        ordered = bits.flag()
        if ordered:
            bits.take(2)
        screen = SELECT if bits.flag() else bits.take(1)
        if screen:
            whole_vectors = SELECT if bits.flag() else bits.take(1)
        if ordered:
            order_bits = bits.take(3) + 1
    return Sequence(
        still=still,
        time_bits=time_bits,
        points=points,
        target=target,
        id_bits=id_bits,
        delta_bits=delta_bits,
        screen=screen,
        whole_vectors=whole_vectors,
        order_bits=order_bits,
    )


def _operation(bits: Bits) -> tuple[int, int, tuple[tuple[int, int], ...]]:
    """Timing and operating points: presentation time bits, the first point, all points."""
    delay_bits = removal_bits = time_bits = 0
    model = False
    if bits.flag():
        bits.take(64)
        equal = bits.flag()
        if equal:
            bits.ue()  # uvlc() is the same code
        model = bits.flag()
        if model:
            delay_bits = bits.take(5) + 1
            bits.take(32)
            removal_bits, presentation_bits = bits.take(5) + 1, bits.take(5) + 1
            time_bits = 0 if equal else presentation_bits
    delays = bits.flag()
    points = []
    for _ in range(bits.take(5) + 1):
        point = bits.take(12)
        if bits.take(5) > 7:
            bits.flag()
        modelled = model and bits.flag()
        if modelled:
            bits.take(2 * delay_bits + 1)
        if delays and bits.flag():
            bits.take(4)
        points.append((point, removal_bits if modelled else 0))
    return time_bits, points[0][0], tuple(points) if model else ()
