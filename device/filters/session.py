"""A filter's network at work: ONNX Runtime, no torch (the extra `camera`)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import FileTypeError, SettingsError
from triparty.common.nets.design import Design
from triparty.common.nets.samples import Inputs

Output = NDArray[np.float32]
_BATCH: Final = 256
_NO_RUNTIME: Final = "a filter needs onnxruntime: pip install 'triparty[camera]'"


class Session:
    """Runs the file of a network, on one thread; several threads may use one session.

    Args:
        file: a single-file ONNX model, as `common/nets/export.py` writes it.
        design: what it was made of.
    """

    def __init__(self, file: bytes, design: Design) -> None:
        """Loads the network.

        Raises:
            FileTypeError: no ONNX model, or one of another design.
            SettingsError: onnxruntime is not installed.
        """
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ImportError as error:
            raise SettingsError(_NO_RUNTIME) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no class of their own
            raise FileTypeError(f"a filter's network is no ONNX model: {error}") from error
        self.file = file
        self._design = design
        names = [one.name for one in self._session.get_inputs()]
        wanted = [one.name for one in design.inputs]
        self._takes_present = len(wanted) > 1
        if names != wanted + ["present"] * self._takes_present:
            raise FileTypeError(
                f"a filter's network takes {', '.join(names):.200}: expected "
                f"{', '.join(wanted):.200}"
            )
        probe = self._run(
            {one.name: np.zeros((1, *one.shape), one.dtype) for one in design.inputs},
            np.ones((1, len(wanted)), np.bool_),
        )
        shape = (1, design.tasks) + ((design.width,) if design.kind == "reuse" else ())
        if probe.shape != shape or probe.dtype != np.float32:
            raise FileTypeError(
                f"a filter's network answers {probe.dtype} {probe.shape}, expected {shape}"
            )

    def run(self, inputs: Inputs) -> Output:
        """Logits (n, tasks) of a skip filter, keys (n, tasks, width) of a reuse filter.

        Args:
            inputs: as `check_inputs` returns them.

        Raises:
            FileTypeError: the network fails on them.
        """
        parts = []
        for start in range(0, len(inputs), _BATCH):
            rows = slice(start, start + _BATCH)
            columns = {name: column[rows] for name, column in inputs.columns.items()}
            parts.append(self._run(columns, inputs.present[rows]))
        return np.concatenate(parts)

    def _run(self, columns: dict[str, NDArray[Any]], present: NDArray[np.bool_]) -> Output:
        feed = dict(columns)
        if self._takes_present:
            feed["present"] = present.astype(np.float32)
        try:
            answer: Output = self._session.run(None, feed)[0]
        except Exception as error:  # as above
            raise FileTypeError(f"a filter's network cannot be run: {error}") from error
        return answer
