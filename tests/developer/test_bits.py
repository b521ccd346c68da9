"""Under permutations with norms kept, every weight moves bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from triparty.developer.protect import Choices, Norms, protect
from triparty.developer.protect.rules import Fate


def signature(bits: NDArray[Any]) -> NDArray[Any]:
    """What a signed permutation of rows and columns leaves of a tensor."""
    absolute = bits & bits.dtype.type((1 << (8 * bits.itemsize - 1)) - 1)
    if absolute.ndim == 1:
        return np.sort(absolute)
    rows = np.sort(absolute, axis=1)
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_tensor_is_a_signed_permutation_bit_for_bit(
    family: str, dtype: str, make_model: Any, bits_of: Any, tmp_path: Path
) -> None:
    source, out = make_model(family, dtype=dtype), tmp_path / "out"
    plan = protect(str(source), out, choices=Choices(norms=Norms.KEEP)).plan
    before, after = bits_of(source), bits_of(out / "model")
    for tied, stands_in in plan.ties.items():
        before.setdefault(tied, before[stands_in])
    assert set(before) == set(after)
    for name, bits in before.items():
        if plan.rule(name).fate is Fate.ON_DEVICE:
            assert not after[name].any()
            continue
        assert (signature(bits) == signature(after[name])).all(), name
        assert (signature(bits.T) == signature(after[name].T)).all(), name
        assert (bits != after[name]).any(), name


def test_device_tables_keep_the_order_of_tokens(
    make_model: Any, bits_of: Any, tmp_path: Path
) -> None:
    source, out = make_model("gpt2"), tmp_path / "out"
    plan = protect(str(source), out).plan
    before, device = bits_of(source), bits_of(out / "device")
    names = {table: rule.pattern for table, rule in plan.device_tables().items()}
    index = np.array(_columns(before[names["rows"]], device["rows"]))
    assert sorted(index) == list(range(plan.width))
    assert (device["rows"] == before[names["rows"]][:, index]).all()
    assert (device["positions"] == before[names["positions"]][:, index]).all()


def _columns(before: NDArray[Any], after: NDArray[Any]) -> list[int]:
    return [int((before == column[:, None]).all(axis=0).argmax()) for column in after.T]
