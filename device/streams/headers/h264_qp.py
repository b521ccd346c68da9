"""The quantiser of an H.264 slice: `slice_qp_delta`, behind the lists of references.

This is most of the work of typing a packet, so fields are read here from one number, without a
call for each. A step over an Exp-Golomb number (9.1) is always the same expression: the number
begins with as many zeros as its value has bits after the first one.
"""

from __future__ import annotations

from triparty.device.streams.headers.h264_sets import Layout

B, I = 1, 2  # noqa: E741 - the standard's letter
MAX_COMMANDS = 66  # of one list, by the standard
ARGUMENTS = {3: 2, 5: 0}  # of a marking command; 1 of the others


def slice_qp(
    value: int, left: int, slice_type: int, idr: bool, reference: bool, layout: Layout
) -> int | None:
    """The quantiser (`SliceQPY`), None if it lies beyond the bits given or is not defined.

    Args:
        value: the slice header as one number.
        left: how many of its bits come after `pic_order_cnt_lsb` of a frame picture.
        slice_type: modulo 5.
        idr: whether the picture is an IDR picture.
        reference: whether `nal_ref_idc` is not 0.
        layout: of the slice header.
    """
    if layout.qp is None or slice_type > I:
        return None
    try:
        for _ in range(layout.extra):
            left = 2 * (value & (1 << left) - 1).bit_length() - left - 1
        if slice_type != I:
            left = _after_references(value, left, slice_type, layout)
        if idr:
            left -= 2
        elif reference:
            left -= 1
            if value >> left & 1:
                left = _after_marking(value, left)
        if layout.arithmetic and slice_type != I:
            left = 2 * (value & (1 << left) - 1).bit_length() - left - 1  # cabac_init_idc
        rest = value & (1 << left) - 1
        code = (rest >> 2 * rest.bit_length() - left - 1) - 1
    except ValueError:  # a negative shift: the bits given have ended
        return None
    return layout.qp + (code + 1 >> 1 if code & 1 else -(code >> 1))


def _after_references(value: int, left: int, slice_type: int, layout: Layout) -> int:
    lists = 1
    if slice_type == B:
        lists = 2
        left -= 1  # direct_spatial_mv_pred_flag
    counts = layout.references
    left -= 1
    if value >> left & 1:
        first = value & (1 << left) - 1
        left = 2 * first.bit_length() - left - 1
        second = value & (1 << left) - 1
        counts = first >> left, 0
        if lists == 2:
            left = 2 * second.bit_length() - left - 1
            counts = counts[0], second >> left
    for _ in range(lists):
        left -= 1
        if value >> left & 1:
            left = _after_modifications(value, left)
    if layout.weights[lists - 1]:
        left = _after_weights(value, left, counts[:lists], layout.chroma)
    return left


def _after_modifications(value: int, left: int) -> int:
    for _ in range(MAX_COMMANDS):
        rest = value & (1 << left) - 1
        left = 2 * rest.bit_length() - left - 1
        if rest >> left == 3 + 1:
            return left
        left = 2 * (value & (1 << left) - 1).bit_length() - left - 1
    raise ValueError


def _after_weights(value: int, left: int, counts: tuple[int, ...], chroma: bool) -> int:
    for _ in range(1 + chroma):
        left = 2 * (value & (1 << left) - 1).bit_length() - left - 1
    for count in counts:
        for _ in range(count):
            left -= 1
            if value >> left & 1:
                for _ in range(2):
                    left = 2 * (value & (1 << left) - 1).bit_length() - left - 1
            if chroma:
                left -= 1
                if value >> left & 1:
                    for _ in range(4):
                        left = 2 * (value & (1 << left) - 1).bit_length() - left - 1
    return left


def _after_marking(value: int, left: int) -> int:
    for _ in range(MAX_COMMANDS):
        rest = value & (1 << left) - 1
        left = 2 * rest.bit_length() - left - 1
        command = (rest >> left) - 1
        if command == 0:
            return left
        for _ in range(ARGUMENTS.get(command, 1)):
            left = 2 * (value & (1 << left) - 1).bit_length() - left - 1
    raise ValueError
