"""Any ONNX model with one input as the source of results: the model that is to be filtered."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from triparty.common.errors import SettingsError

_TYPES: Final = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class LabelModel:
    """Runs a model on one input at a time, on one thread.

    Args:
        path: a single-file ONNX model with one input, whose first axis is the batch.
    """

    def __init__(self, path: Path) -> None:
        """Loads the model.

        Raises:
            SettingsError: no such file, no ONNX model, more than one input or output, or
                onnxruntime is not installed.
        """
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ImportError as error:
            raise SettingsError(
                "a model needs onnxruntime: pip install 'triparty[camera]'"
            ) from error
        if not path.is_file():
            raise SettingsError(f"{path}: no such model")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no class of their own
            raise SettingsError(f"{path}: not an ONNX model ({error})") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type not in _TYPES:
            raise SettingsError(
                f"{path}: expected one input of numbers and one output, got "
                f"{len(inputs)} and {len(outputs)}"
            )
        self._name, self._dtype = inputs[0].name, _TYPES[inputs[0].type]
        self._path = path

    def __call__(self, value: Any) -> Any:
        """The output for one input, without the axis of the batch.

        Raises:
            SettingsError: the model does not take it.
        """
        feed = {self._name: np.asarray(value, self._dtype)[None]}
        try:
            return self._session.run(None, feed)[0][0]
        except Exception as error:  # as above
            raise SettingsError(f"{self._path} does not take such inputs: {error}") from error
