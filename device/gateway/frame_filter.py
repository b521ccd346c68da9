"""A filter at work on frames: what it says of them, and how right audits find it.

It looks at the luma plane, averaged to the size that its network takes. A share of all frames,
drawn whatever it says of them, goes to the model: where the filter would have answered, what
the model sees tells whether it was right, and the answer is the model's. Where it would not
have, the model runs anyhow, and the filter was right at no cost. So the share of wrong ones is
that of all frames, which is what its threshold promises.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import thread_time
from typing import Final

import numpy as np

from triparty.common.artifacts import MANIFEST_FILE, Manifest
from triparty.common.errors import ArtifactError, DatasetError, SettingsError
from triparty.common.filters import FILTER_FILE, NETWORK_FILE, is_filter
from triparty.common.nets.calibration import accuracy_bound, accuracy_ceiling
from triparty.device.filters.cache import Keys, ReuseCache
from triparty.device.filters.drift import DriftAlarm
from triparty.device.filters.filter import Filter
from triparty.device.filters.session import Output
from triparty.device.gate.traces import Task
from triparty.device.gateway.frames import Pixels, Purpose, StreamFrame
from triparty.device.gateway.luma import averaged
from triparty.device.gateway.samples import Sample, Samples
from triparty.device.gateway.settings import FilterSettings, MiB
from triparty.device.gateway.stages import Reused, Seen, StandIn
from triparty.device.gateway.stand_ins import agrees, check_measure, is_needed, label
from triparty.device.gateway.status import FilterStatus

log = logging.getLogger(__name__)

SHARED: Final = ""
WINDOW: Final = 1000
"""Audits whose accuracy is told, and frames among which one is the least certain."""
LEAST_WINDOW: Final = 100
_CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Loaded:
    """A filter that was read from its folder.

    Attributes:
        filter: that runs.
        stamp: of its files; another one is another filter.
        version: that its developer gave it; None for one that was made here.
    """

    filter: Filter
    stamp: str
    version: int | None


def folder_of(settings: FilterSettings, folder: Path) -> Path:
    """Where a filter lies: relative to the configuration, or among those that were pulled."""
    own = folder / settings.artifact
    if own.exists() or len(settings.artifact.parts) != 1:
        return own
    from triparty.device.settings import DeviceSettings

    pulled = DeviceSettings.load(None).home / "filters" / settings.artifact
    return pulled if pulled.exists() else own


def stamp_of(path: Path) -> str:
    """Tells the files of one filter from those of another; empty where there are none."""
    digest = hashlib.sha256()
    try:
        for name in (FILTER_FILE, NETWORK_FILE):
            digest.update((path / name).read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()


def load(settings: FilterSettings, folder: Path) -> Loaded:
    """Reads a filter, and checks that it can look at frames.

    Args:
        settings: of it.
        folder: of the configuration.

    Raises:
        SettingsError: no filter, a broken one, or one that takes something else than luma; the
            message names the folder and what to do.
    """
    path = folder_of(settings, folder)
    where = f"filter '{settings.name}': {path}"
    if not is_filter(path):
        raise SettingsError(
            f"{where} is no filter: make one with 'triparty device filter fit', or fetch it "
            "with 'triparty device pull'"
        )
    stamp = stamp_of(path)
    try:
        filter_ = Filter.load(path)
        version = _version(path)
    except ArtifactError as error:
        raise SettingsError(
            f"{where} cannot be used ({error.message}): fit or pull it again"
        ) from error
    artifact = filter_.artifact
    if len(artifact.tasks) != 1:
        raise SettingsError(
            f"{where} has {len(artifact.tasks)} outputs: expected one, fit it for one task"
        )
    if len(artifact.design.inputs) != 1 or _size(filter_) is None:
        told = ", ".join(f"{one.modality} {one.shape}" for one in artifact.design.inputs)
        raise SettingsError(
            f"{where} takes {told}: expected an image of one channel, fit it on luma planes"
        )
    check_measure(artifact.tasks[0].measure, where)
    if artifact.tasks[0].calibration.threshold is None:
        log.warning("%s keeps its target with no threshold: it filters nothing", where)
    return Loaded(filter_, stamp, version)


def _version(path: Path) -> int | None:
    manifest = path / MANIFEST_FILE
    return Manifest.from_bytes(manifest.read_bytes()).version if manifest.is_file() else None


def _size(filter_: Filter) -> tuple[int, int] | None:
    """Height and width that a filter takes; None if it takes no luma."""
    spec = filter_.artifact.design.inputs[0]
    if spec.modality != "image" or 1 not in (spec.shape[0], spec.shape[-1]):
        return None
    height, width = spec.shape[:2] if spec.shape[-1] == 1 else spec.shape[1:]
    return height, width


@dataclass(frozen=True, eq=False)
class Decision:
    """What a filter says of a frame.

    Attributes:
        said: in the place of the model; None to let it look.
        runs: whether the model looks.
        is_audit: whether chance chose the frame.
        is_unsure: whether the filter is less certain of it than of most.
        pixels: (H, W, 1) as the network took them.
        key: of the cache; only of a reuse filter.
    """

    said: StandIn | None
    runs: bool
    is_audit: bool = False
    is_unsure: bool = False
    pixels: Pixels | None = None
    key: Keys | None = None


@dataclass(eq=False)
class Count:
    """What a filter has done; goes on when other weights take its place.

    Attributes:
        passed: frames that went to the model, because the filter was sure that it is needed,
            not sure enough, or asked for a label.
        skipped: frames answered by what stands for a useless result.
        reused: frames answered by an earlier result.
        audited: frames that chance sent to the model.
        wrong: audits that the filter would have answered otherwise than the model.
        observed: frames decoded for others alone of which it knew the answer.
        failed: frames that its network could not take.
        cpu_ms: that it took.
    """

    passed: int = 0
    skipped: int = 0
    reused: int = 0
    audited: int = 0
    wrong: int = 0
    observed: int = 0
    failed: int = 0
    cpu_ms: float = 0.0


class FrameFilter:
    """A filter in front of the model of some cameras, at work in the thread of the stages.

    Args:
        settings: of it.
        loaded: what runs.
        tasks: of its model.
        samples: keeps what it can be trained on; None keeps nothing.
        count: goes on from; None begins at nothing.
        seed: of the audits.
    """

    def __init__(
        self,
        settings: FilterSettings,
        loaded: Loaded,
        tasks: Sequence[Task],
        *,
        samples: Samples | None = None,
        count: Count | None = None,
        seed: int = 0,
    ) -> None:
        """Has seen nothing."""
        artifact = loaded.filter.artifact
        (self._task,) = artifact.tasks
        self._design, self._reuse = artifact.design, artifact.reuse
        size = _size(loaded.filter)
        if size is None:
            raise ValueError("not a filter of luma planes: see load")
        self._height, self._width = size
        self.settings, self.loaded, self.samples = settings, loaded, samples
        self.count = count or Count()
        self._tasks = tuple(tasks)
        self._rng = np.random.default_rng(seed)
        self._caches = dict[str, ReuseCache]()
        self._last = dict[str, Seen]()
        self._certainties: deque[float] = deque(maxlen=WINDOW)
        self._right: deque[bool] = deque(maxlen=WINDOW)
        self._alarm = DriftAlarm(self._task.calibration.target_accuracy)
        self._lock = threading.Lock()

    @staticmethod
    def folder_of_samples(settings: FilterSettings, folder: Path, kind: str) -> Samples | None:
        """Where a filter's samples go, if they are kept.

        Args:
            settings: of it.
            folder: of the configuration.
            kind: `skip` or `reuse`.
        """
        if settings.samples is None:
            return None
        column = "needed" if kind == "skip" else "results"
        return Samples(folder / settings.samples, column, settings.samples_mib * MiB)

    @property
    def kind(self) -> str:
        """`skip` or `reuse`."""
        return self._design.kind

    def decide(self, frames: Sequence[StreamFrame], *, observe: bool) -> list[Decision]:
        """What it says of frames.

        Args:
            frames: of its cameras, none of them of an audit of the gate.
            observe: whether the model looks at what was decoded for others alone.
        """
        begin = thread_time()
        pixels = [averaged(frame.luma(), self._height, self._width) for frame in frames]
        try:
            outputs = self._outputs(np.stack(pixels))
        except (ArtifactError, DatasetError):
            self.count.failed += len(frames)
            return [
                Decision(None, observe or frame.purpose is not Purpose.DEPENDENCY)
                for frame in frames
            ]
        made = [
            self._decide(frame, output, one[:, :, None], observe=observe)
            for frame, output, one in zip(frames, outputs, pixels, strict=True)
        ]
        self.count.cpu_ms += (thread_time() - begin) * 1e3
        return made

    def hear(self, decision: Decision, frame: StreamFrame, seen: Seen) -> None:
        """What the model saw in a frame that it looked at after a decision."""
        if decision.pixels is None:
            return
        with self._lock:
            before = self._last.get(frame.stream)
            self._last[frame.stream] = seen
        if decision.key is not None and decision.said is None:
            self._cache(frame.stream).put(decision.key, Reused(seen))
        if decision.is_audit:
            self._audited(self._is_right(decision, before, seen))
        if self.samples is not None and (decision.is_audit or decision.is_unsure):
            found = (
                label(self._tasks, seen)
                if self.kind == "reuse"
                else is_needed(self._task.measure, self._tasks, before, seen)
            )
            self.samples.add(Sample(decision.pixels, found, decision.is_audit, frame.wall))

    def forget(self, cameras: Sequence[str]) -> None:
        """Keeps nothing of cameras other than these; may be called by any thread."""
        kept = {SHARED, *cameras}
        with self._lock:
            self._caches = {name: one for name, one in self._caches.items() if name in kept}
            self._last = {name: one for name, one in self._last.items() if name in kept}

    def close(self) -> None:
        """Writes samples that wait."""
        if self.samples is not None:
            self.samples.flush()

    def status(self) -> FilterStatus:
        """How it stands; may be called by any thread."""
        count = self.count
        with self._lock:
            audits, wrong = len(self._right), self._right.count(False)
            is_drifting = self._alarm.is_raised
        return FilterStatus(
            name=self.settings.name,
            model=self.settings.model,
            version=self.loaded.version,
            passed=count.passed,
            filtered=count.skipped + count.reused,
            reused=count.reused,
            audited=count.audited,
            wrong=count.wrong,
            observed=count.observed,
            failed=count.failed,
            cpu_ms=count.cpu_ms,
            samples=0 if self.samples is None else self.samples.count,
            accuracy=1.0 - wrong / audits if audits else None,
            accuracy_low=accuracy_bound(wrong, audits, _CONFIDENCE) if audits else 0.0,
            accuracy_high=accuracy_ceiling(wrong, audits, _CONFIDENCE) if audits else 1.0,
            target_accuracy=self._task.calibration.target_accuracy,
            is_drifting=is_drifting,
        )

    def _outputs(self, pixels: Pixels) -> Output:
        """(n,) logits or (n, width) keys of (n, H, W) luma planes."""
        spec = self._design.inputs[0]
        column = pixels.reshape(len(pixels), *spec.shape)
        outputs: Output = self.loaded.filter.outputs({spec.name: column})[:, 0]
        return outputs

    def _decide(
        self, frame: StreamFrame, output: Output, pixels: Pixels, *, observe: bool
    ) -> Decision:
        said, certainty, key = self._say(frame, output)
        if frame.purpose is Purpose.DEPENDENCY and not observe:
            self.count.observed += said is not None
            return Decision(said, runs=False)
        is_audit = bool(self._rng.random() < self.settings.audit_share)
        is_unsure = self.samples is not None and self._is_unsure(certainty)
        runs = said is None or is_audit or is_unsure
        self._tell(said, runs=runs)
        return Decision(said, runs, is_audit, is_unsure, pixels, key)

    def _say(
        self, frame: StreamFrame, output: Output
    ) -> tuple[StandIn | None, float, Keys | None]:
        """What stands for the model's answer, how sure that is, and the key of the cache."""
        threshold = self._task.calibration.threshold
        if self.kind == "skip":
            logit = float(output)
            is_skipped = threshold is not None and logit <= threshold
            said = self._task.measure.skipped(self.settings.model) if is_skipped else None
            return said, abs(0.5 * math.tanh(0.5 * logit)), None  # |g(x) - 0.5|
        if threshold is None:
            return None, 0.0, output
        found = self._cache(frame.stream).look(output)
        return found.result if found.is_hit else None, found.theta, output

    def _tell(self, said: StandIn | None, *, runs: bool) -> None:
        if runs:
            self.count.passed += 1
        elif isinstance(said, Reused):
            self.count.reused += 1
        else:
            self.count.skipped += 1

    def _is_unsure(self, certainty: float) -> bool:
        known = len(self._certainties) >= LEAST_WINDOW
        share = self.settings.uncertain_share
        found = known and certainty < float(np.quantile(self._certainties, share))
        self._certainties.append(certainty)
        return found

    def _cache(self, camera: str) -> ReuseCache:
        name = camera if self.settings.cache == "camera" else SHARED
        with self._lock:
            if name not in self._caches:
                self._caches[name] = ReuseCache(
                    self._design.width,
                    self._reuse.within(self._task.calibration.threshold),
                    identity=lambda result: label(self._tasks, result.seen),
                )
            return self._caches[name]

    def _is_right(self, decision: Decision, before: Seen | None, seen: Seen) -> bool:
        if decision.said is None:
            return True
        if isinstance(decision.said, Reused):
            return agrees(self._tasks, decision.said.seen, seen)
        return not is_needed(self._task.measure, self._tasks, before, seen)

    def _audited(self, is_right: bool) -> None:
        was_raised = self._alarm.is_raised
        with self._lock:
            self.count.audited += 1
            self.count.wrong += not is_right
            self._right.append(is_right)
            self._alarm.audited(is_wrong=not is_right)
        if self._alarm.is_raised and not was_raised:
            status = self.status()
            log.warning(
                "filter '%s' drifts: %d of its last %d audits were wrong, it promised an "
                "accuracy of %.0f %%: fit it again",
                self.settings.name,
                self._right.count(False),
                len(self._right),
                100 * status.target_accuracy,
            )
