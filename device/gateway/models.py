"""Models as stages: a detector in ONNX, or a Python function that the configuration names."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from triparty.common.errors import SettingsError
from triparty.device.gate.detectors import Detections, Detector
from triparty.device.gateway.frames import StreamFrame
from triparty.device.gateway.settings import ModelSettings
from triparty.device.gateway.stages import PASS, Seen, Verdict


class DetectorStage:
    """A detector that looks at each frame of the cameras that ask it.

    Args:
        name: of the model.
        detector: finds objects.
    """

    def __init__(self, name: str, detector: Detector) -> None:
        """Wraps a loaded detector."""
        self.name = name
        self._detector = detector

    def change(self, settings: ModelSettings) -> None:
        """From now on less certain objects than these say are dropped."""
        self._detector.least_score = settings.least_score

    def process(self, frames: Sequence[StreamFrame]) -> Sequence[Verdict]:
        """The objects of each frame."""
        return [
            Verdict({self.name: self._detector.detect(frame.image)})
            if frame.asks(self.name)
            else PASS
            for frame in frames
        ]

    def cpu_ms(self) -> float | None:
        """None: the session runs in the calling thread."""
        return None

    def close(self) -> None:
        """Lets the session go."""
        del self._detector


class FunctionStage:
    """A Python function that looks at each frame of the cameras that ask it.

    Args:
        name: of the model.
        function: takes a frame's pixels, (H, W, 3) uint8 RGB; returns a number, or objects as
            an iterable of (label, score, (left, top, right, bottom)) with label a class number
            and the box in shares of the frame.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        """Wraps a function."""
        self.name = name
        self._function = function

    def process(self, frames: Sequence[StreamFrame]) -> Sequence[Verdict]:
        """What the function says of each frame."""
        return [
            Verdict({self.name: _seen(self._function(frame.rgb()))})
            if frame.asks(self.name)
            else PASS
            for frame in frames
        ]

    def cpu_ms(self) -> float | None:
        """None: what the function does elsewhere is not known."""
        return None

    def close(self) -> None:
        """Holds nothing."""


def make_stage(settings: ModelSettings, folder: Path) -> DetectorStage | FunctionStage:
    """The stage of a model.

    Args:
        settings: of the model.
        folder: relative files are relative to it.

    Raises:
        SettingsError: no such file, module or function.
    """
    if settings.python is not None:
        return FunctionStage(settings.name, _function(settings))
    path = _path(settings, folder)
    return DetectorStage(settings.name, Detector(path, least_score=settings.least_score))


def least_mib(settings: ModelSettings, folder: Path) -> float:
    """Memory that a model takes in any case, in MiB: the size of its file.

    Args:
        settings: of the model.
        folder: relative files are relative to it.
    """
    if settings.python is not None:
        return 0.0
    return _path(settings, folder).stat().st_size / (1 << 20)


def _path(settings: ModelSettings, folder: Path) -> Path:
    return _pulled(settings.name) if settings.file is None else folder / settings.file


def _pulled(name: str) -> Path:
    from triparty.common.edge_models import NETWORK_FILE
    from triparty.device.home import Home
    from triparty.device.settings import DeviceSettings

    return Home(DeviceSettings.load(None).home).edge_model_folder(name) / NETWORK_FILE


def find_model(settings: ModelSettings, folder: Path) -> None:
    """Opens a model's file and closes it; of a function its module is found and not run.

    Args:
        settings: of the model.
        folder: relative files are relative to it.

    Raises:
        SettingsError: no such file or module, or no detector.
    """
    if settings.file is not None:
        Detector(folder / settings.file, least_score=settings.least_score)
        return
    package = (settings.python or "").partition(":")[0].partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise SettingsError(f"model '{settings.name}': no module named '{package}'")


def _function(settings: ModelSettings) -> Callable[..., Any]:
    module, _, name = (settings.python or "").partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"model '{settings.name}': {error}") from error
    if not callable(function):
        raise SettingsError(f"model '{settings.name}': {settings.python} is no function")
    return function  # type: ignore[no-any-return]


def _seen(answer: Any) -> Seen:
    """What a function returned, checked."""
    if isinstance(answer, Detections):
        return answer
    if isinstance(answer, bool | int | float | np.number):
        return float(answer)
    if not isinstance(answer, Iterable) or isinstance(answer, str | Mapping):
        raise TypeError(f"a model returned {type(answer).__name__}: expected number or objects")
    objects = sorted(answer, key=lambda each: -float(each[1]))
    return Detections(
        boxes=np.array([each[2] for each in objects], np.float32).reshape(-1, 4),
        labels=np.array([each[0] for each in objects], np.int32),
        scores=np.array([each[1] for each in objects], np.float32),
    )
