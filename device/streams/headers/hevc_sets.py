"""H.265 parameter sets: only what slice headers need (ITU-T H.265, 7.3.2.2 and 7.3.2.3)."""

from __future__ import annotations

from dataclasses import dataclass

from triparty.common.errors import PacketError
from triparty.device.streams.bits import Bits
from triparty.device.streams.headers.sets import at_most

CHROMA_444 = 3
MAX_SEQUENCE_SETS, MAX_PICTURE_SETS = 16, 64
MAX_SIDE = 1 << 16  # pixels
PROFILE_BITS, LEVEL_BITS = 88, 8


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """A sequence parameter set.

    Attributes:
        id: its number.
        top_layer: the highest temporal sub-layer that may occur.
        chroma: `ChromaArrayType`, 0 if there is no chroma or each plane has its own slices.
        planes: whether each colour plane has its own slices.
        address_bits: of `slice_segment_address`.
        offsets: whether sample adaptive offset is used.
    """

    id: int
    top_layer: int
    chroma: int
    planes: bool
    address_bits: int
    offsets: bool


@dataclass(frozen=True, slots=True)
class PictureSet:
    """A picture parameter set.

    Attributes:
        id: its number.
        sequence_set: of which it is a part.
        dependent: whether there are slice segments without a full header.
        output_flag: whether slices say if their picture is output.
        extra_bits: that begin every full header and mean nothing.
        qp: of a slice whose delta is 0.
    """

    id: int
    sequence_set: int
    dependent: bool
    output_flag: bool
    extra_bits: int
    qp: int


def sequence_set(bits: Bits) -> SequenceSet:
    """Reads a sequence parameter set.

    Args:
        bits: after the NAL header, without emulation prevention.

    Raises:
        PacketError: it ends early or holds numbers that the standard does not allow.
    """
    bits.take(4)
    top_layer = bits.take(3)
    bits.flag()
    _skip_levels(bits, top_layer)
    number = at_most(bits.ue(), MAX_SEQUENCE_SETS - 1, "sps_seq_parameter_set_id")
    chroma = at_most(bits.ue(), CHROMA_444, "chroma_format_idc")
    planes = chroma == CHROMA_444 and bits.flag()
    width, height = (at_most(bits.ue(), MAX_SIDE, "pic_size") for _ in range(2))
    if bits.flag():
        for _ in range(4):
            bits.ue()
    bits.ue()
    bits.ue()
    at_most(bits.ue(), 12, "log2_max_pic_order_cnt_lsb_minus4")
    for _ in range(1 if not bits.flag() else top_layer + 1):
        for _ in range(3):
            bits.ue()
    block_bits = 3 + at_most(bits.ue(), 3, "log2_min_luma_coding_block_size_minus3")
    block_bits += at_most(bits.ue(), 3, "log2_diff_max_min_luma_coding_block_size")
    for _ in range(4):
        bits.ue()
    if bits.flag() and bits.flag():
        _skip_scaling_lists(bits)
    bits.flag()
    offsets = bits.flag()
    return SequenceSet(
        id=number,
        top_layer=top_layer,
        chroma=0 if planes else chroma,
        planes=planes,
        address_bits=_address_bits(width, height, block_bits),
        offsets=offsets,
    )


def picture_set(bits: Bits) -> PictureSet:
    """Reads a picture parameter set.

    Args:
        bits: after the NAL header, without emulation prevention.

    Raises:
        PacketError: it ends early or holds numbers that the standard does not allow.
    """
    number = at_most(bits.ue(), MAX_PICTURE_SETS - 1, "pps_pic_parameter_set_id")
    sequence = at_most(bits.ue(), MAX_SEQUENCE_SETS - 1, "pps_seq_parameter_set_id")
    dependent, output_flag, extra_bits = bits.flag(), bits.flag(), bits.take(3)
    bits.take(2)
    bits.ue()
    bits.ue()
    return PictureSet(
        id=number,
        sequence_set=sequence,
        dependent=dependent,
        output_flag=output_flag,
        extra_bits=extra_bits,
        qp=26 + bits.se(),
    )


def _skip_levels(bits: Bits, top_layer: int) -> None:
    """`profile_tier_level`."""
    bits.take(PROFILE_BITS + LEVEL_BITS)
    present = [(bits.flag(), bits.flag()) for _ in range(top_layer)]
    if top_layer:
        bits.take(2 * (8 - top_layer))
    for profile, level in present:
        bits.take(PROFILE_BITS * profile + LEVEL_BITS * level)


def _skip_scaling_lists(bits: Bits) -> None:
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if not bits.flag():
                bits.ue()
                continue
            if size > 1:
                bits.se()
            for _ in range(min(64, 16 << 2 * size)):
                bits.se()


def _address_bits(width: int, height: int, block_bits: int) -> int:
    if not width or not height:
        raise PacketError("a picture of no size: the parameter set is damaged")
    blocks = (-width >> block_bits) * (-height >> block_bits)  # both rounded up
    return (blocks - 1).bit_length()
