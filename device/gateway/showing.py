"""Which decoded frames the stages are shown, and as what."""

from __future__ import annotations

from collections.abc import Callable

from triparty.device.gateway.camera import Camera
from triparty.device.gateway.clock import Clock
from triparty.device.gateway.frames import Purpose, StreamFrame
from triparty.device.gateway.looking import Looker
from triparty.device.streams.decoder import Frame

_SLACK_S = 1e-6


class Showing:
    """Hands frames to the stages; used by the loop's thread alone.

    Args:
        looker: shows frames to the stages.
        clock: the loop's.
        wall: seconds since 1970.
        models_observe: models look at what was decoded only for others.
        stages_observe: any stage does.
        asked: of the models that a camera asks, those that look at its frames for that.

    Attributes:
        stages_observe: any stage does, now.
    """

    def __init__(
        self,
        looker: Looker,
        clock: Clock,
        wall: Callable[[], float],
        *,
        models_observe: bool,
        stages_observe: bool,
        asked: Callable[[frozenset[str]], frozenset[str]] = lambda models: models,
    ) -> None:
        """Takes now for the beginning."""
        self._looker, self._clock, self._wall = looker, clock, wall
        self._models_observe, self.stages_observe = models_observe, stages_observe
        self._asked = asked
        self._began, self._wall_began = clock.now(), wall()

    def show(self, camera: Camera, run: int, frame: Frame) -> None:
        """Shows a frame that a job of the gate brought, if a stage wants it."""
        if not self._is_wanted(camera, frame):
            return
        purpose = Purpose.CHOSEN
        if not frame.target:
            purpose = Purpose.DEPENDENCY if camera.whole is None else Purpose.WHOLE
        if self._models_observe or purpose is not Purpose.DEPENDENCY:
            camera.looked, camera.look_time = self._clock.now(), frame.time
        self._hand_over(camera, run, frame, purpose)

    def audit(self, camera: Camera, run: int, frame: Frame, group: int) -> None:
        """Shows a frame of an audited group."""
        self._hand_over(camera, run, frame, Purpose.AUDIT, group)

    def _is_wanted(self, camera: Camera, frame: Frame) -> bool:
        if camera.whole is None:
            return frame.target or self.stages_observe
        return is_due(camera, frame, camera.look_time)

    def _hand_over(
        self,
        camera: Camera,
        run: int,
        frame: Frame,
        purpose: Purpose,
        group: int | None = None,
    ) -> None:
        shown = StreamFrame(
            stream=camera.name,
            key=camera.key,
            run=run,
            pts=frame.pts,
            time=frame.time,
            wall=self._wall_of(camera.added + frame.time),
            selected=frame.target and purpose is not Purpose.AUDIT,
            image=frame.image,
            purpose=purpose,
            group=group,
            models=self._asked(frozenset(task.model for task in camera.tasks)),
        )
        self._looker.show(shown, wait=self._clock.virtual)

    def _wall_of(self, then: float) -> float:
        """Seconds since 1970 of a time on the loop's clock."""
        if self._clock.virtual:
            return self._wall_began + then - self._began
        return self._wall() + then - self._clock.now()


def is_due(camera: Camera, frame: Frame, last: float) -> bool:
    """Whether a frame comes late enough after the last one for `looks_per_s`."""
    return frame.time >= last + 1 / camera.settings.looks_per_s - _SLACK_S
