"""H.264 parameter sets: only what slice headers need (ITU-T H.264, 7.3.2.1 and 7.3.2.2)."""

from __future__ import annotations

from dataclasses import dataclass

from triparty.device.streams.bits import Bits
from triparty.device.streams.headers.sets import at_most

HIGH_PROFILES = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
CHROMA_444 = 3
MAX_SEQUENCE_SETS, MAX_PICTURE_SETS = 32, 256
MAX_ORDER_CYCLE = 255


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """A sequence parameter set.

    Attributes:
        id: its number.
        chroma: `ChromaArrayType`, 0 if there is no chroma or each plane has its own slices.
        number_bits: of `colour_plane_id` and `frame_num` together.
        order_type: `pic_order_cnt_type`.
        order_bits: of `pic_order_cnt_lsb`, 0 if the type has none.
        order_deltas: whether slices have `delta_pic_order_cnt`.
        fields: whether pictures may be single fields.
    """

    id: int
    chroma: int
    number_bits: int
    order_type: int
    order_bits: int
    order_deltas: bool
    fields: bool


@dataclass(frozen=True, slots=True)
class PictureSet:
    """A picture parameter set; `qp` is None where slice groups hide what follows them."""

    id: int
    sequence_set: int
    arithmetic: bool
    bottom_order: bool
    references: tuple[int, int]
    weighted: bool
    weighted_b: int
    qp: int | None
    redundant: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """How slice headers are laid out under one picture set and its sequence set.

    Attributes:
        number_bits: of `colour_plane_id` and `frame_num` together.
        fields: whether pictures may be single fields.
        order_type: `pic_order_cnt_type`.
        order_bits: of `pic_order_cnt_lsb`, 0 if the type has none.
        extra: how many Exp-Golomb numbers follow it in frame pictures.
        references: how many pictures each list holds unless a slice says otherwise.
        weights: whether P slices, and whether B slices, hold tables of weights.
        chroma: whether weights of chroma are among them.
        arithmetic: whether slices say how their arithmetic coder starts.
        qp: of a slice whose delta is 0; None where it cannot be found.
    """

    number_bits: int
    fields: bool
    order_type: int
    order_bits: int
    extra: int
    references: tuple[int, int]
    weights: tuple[bool, bool]
    chroma: bool
    arithmetic: bool
    qp: int | None

    @classmethod
    def of(cls, sequence: SequenceSet, pictures: PictureSet) -> Layout:
        """Brings both sets together."""
        bottom = pictures.bottom_order and (sequence.order_type == 0 or sequence.order_deltas)
        return cls(
            number_bits=sequence.number_bits,
            fields=sequence.fields,
            order_type=sequence.order_type,
            order_bits=sequence.order_bits,
            extra=sequence.order_deltas + bottom + pictures.redundant,
            references=pictures.references,
            weights=(pictures.weighted, pictures.weighted_b == 1),
            chroma=sequence.chroma != 0,
            arithmetic=pictures.arithmetic,
            qp=pictures.qp,
        )


def sequence_set(bits: Bits) -> SequenceSet:
    """Reads a sequence parameter set.

    Args:
        bits: after the NAL header, without emulation prevention.

    Raises:
        PacketError: it ends early or holds numbers that the standard does not allow.
    """
    profile = bits.take(8)
    bits.take(16)
    number = at_most(bits.ue(), MAX_SEQUENCE_SETS - 1, "seq_parameter_set_id")
    chroma, planes = 1, False
    if profile in HIGH_PROFILES:
        chroma = at_most(bits.ue(), CHROMA_444, "chroma_format_idc")
        planes = chroma == CHROMA_444 and bits.flag()
        bits.ue()
        bits.ue()
        bits.flag()
        if bits.flag():
            _skip_scaling_lists(bits, 12 if chroma == CHROMA_444 else 8)
    number_bits = 4 + at_most(bits.ue(), 12, "log2_max_frame_num_minus4")
    order_type = at_most(bits.ue(), 2, "pic_order_cnt_type")
    order_bits, order_deltas = 0, False
    if order_type == 0:
        order_bits = 4 + at_most(bits.ue(), 12, "log2_max_pic_order_cnt_lsb_minus4")
    elif order_type == 1:
        order_deltas = not bits.flag()
        bits.se()
        bits.se()
        for _ in range(at_most(bits.ue(), MAX_ORDER_CYCLE, "num_ref_frames_in_cycle")):
            bits.se()
    bits.ue()
    bits.flag()
    bits.ue()
    bits.ue()
    return SequenceSet(
        id=number,
        chroma=0 if planes else chroma,
        number_bits=number_bits + (2 if planes else 0),
        order_type=order_type,
        order_bits=order_bits,
        order_deltas=order_deltas,
        fields=not bits.flag(),
    )


def picture_set(bits: Bits) -> PictureSet:
    """Reads a picture parameter set.

    Args:
        bits: after the NAL header, without emulation prevention.

    Raises:
        PacketError: it ends early or holds numbers that the standard does not allow.
    """
    number = at_most(bits.ue(), MAX_PICTURE_SETS - 1, "pic_parameter_set_id")
    sequence = at_most(bits.ue(), MAX_SEQUENCE_SETS - 1, "seq_parameter_set_id")
    arithmetic, bottom_order = bits.flag(), bits.flag()
    if bits.ue():
        return PictureSet(
            number, sequence, arithmetic, bottom_order, (1, 1), False, 0, None, False
        )
    references = (1 + at_most(bits.ue(), 31, "refs"), 1 + at_most(bits.ue(), 31, "refs"))
    weighted, weighted_b = bits.flag(), bits.take(2)
    qp = 26 + bits.se()
    bits.se()
    bits.se()
    bits.take(2)
    return PictureSet(
        number,
        sequence,
        arithmetic,
        bottom_order,
        references,
        weighted,
        weighted_b,
        qp,
        bits.flag(),
    )


def _skip_scaling_lists(bits: Bits, count: int) -> None:
    for place in range(count):
        if not bits.flag():
            continue
        last = following = 8
        for _ in range(16 if place < 6 else 64):
            if following:
                following = (last + bits.se()) % 256
            last = following or last
