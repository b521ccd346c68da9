"""The quantiser of an H.264 slice: `slice_qp_delta`, behind the lists of references."""

from __future__ import annotations

from triparty.common.errors import PacketError
from triparty.device.streams.bits import Bits
from triparty.device.streams.headers.h264_sets import PictureSet, SequenceSet

P, B, I = 0, 1, 2  # noqa: E741 - the standard's letters
MAX_COMMANDS = 66  # of one list, by the standard


def slice_qp(
    bits: Bits,
    slice_type: int,
    *,
    idr: bool,
    reference: bool,
    sequence: SequenceSet,
    pictures: PictureSet,
) -> int | None:
    """The quantiser (`SliceQPY`), None if it lies beyond the bits given or is not defined.

    Args:
        bits: after `pic_order_cnt_lsb` of a frame picture.
        slice_type: modulo 5.
        idr: whether the picture is an IDR picture.
        reference: whether `nal_ref_idc` is not 0.
        sequence: the sequence set in force.
        pictures: the picture set in force.
    """
    if pictures.qp is None or slice_type > I:
        return None
    try:
        _skip_order(bits, sequence, pictures)
        if slice_type != I:
            _skip_references(bits, slice_type, sequence, pictures)
        if reference:
            _skip_marking(bits, idr)
        if pictures.arithmetic and slice_type != I:
            bits.ue()
        return pictures.qp + bits.se()
    except PacketError:
        return None


def _skip_order(bits: Bits, sequence: SequenceSet, pictures: PictureSet) -> None:
    if sequence.order_type == 0 and pictures.bottom_order:
        bits.se()
    if sequence.order_deltas:
        bits.se()
        if pictures.bottom_order:
            bits.se()
    if pictures.redundant:
        bits.ue()


def _skip_references(
    bits: Bits, slice_type: int, sequence: SequenceSet, pictures: PictureSet
) -> None:
    if slice_type == B:
        bits.flag()  # direct_spatial_mv_pred_flag
    lists = 2 if slice_type == B else 1
    counts = pictures.references[:lists]
    if bits.flag():
        counts = tuple(bits.ue() + 1 for _ in range(lists))
    for _ in range(lists):
        if bits.flag():
            _skip_modifications(bits)
    if pictures.weighted if slice_type == P else pictures.weighted_b == 1:
        _skip_weights(bits, counts, sequence.chroma != 0)


def _skip_modifications(bits: Bits) -> None:
    for _ in range(MAX_COMMANDS):
        if bits.ue() == 3:
            return
        bits.ue()
    raise PacketError("reference list modifications without an end: the header is damaged")


def _skip_weights(bits: Bits, counts: tuple[int, ...], chroma: bool) -> None:
    bits.ue()
    if chroma:
        bits.ue()
    for count in counts:
        for _ in range(count):
            if bits.flag():
                bits.se()
                bits.se()
            if chroma and bits.flag():
                for _ in range(4):
                    bits.se()


def _skip_marking(bits: Bits, idr: bool) -> None:
    if idr:
        bits.take(2)
    elif bits.flag():
        for _ in range(MAX_COMMANDS):
            command = bits.ue()
            if command == 0:
                return
            if command != 5:
                bits.ue()
            if command == 3:
                bits.ue()
        raise PacketError("reference markings without an end: the header is damaged")
