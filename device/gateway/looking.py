"""The thread that shows decoded frames to the stages."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from triparty.device.gateway.frames import Purpose, StreamFrame
from triparty.device.gateway.stages import Chain, Outcome


class Looker:
    """Runs frames through the chain, in batches, as fast as that goes.

    What waits is bounded: of a chain that cannot keep up, frames that nobody chose are dropped,
    then the oldest ones, for newer ones say more. Nobody waits for it.

    Args:
        chain: of stages.
        done: called with the outcomes of a batch; those of dropped frames have failed.
        most: frames that may wait.
        batch: frames that are given to a stage at once.
    """

    def __init__(
        self,
        chain: Chain,
        done: Callable[[Sequence[Outcome]], None],
        *,
        most: int = 32,
        batch: int = 8,
    ) -> None:
        """Starts the thread."""
        self._chain, self._done = chain, done
        self._most, self._batch = most, batch
        self._waiting: deque[StreamFrame] = deque()
        self._busy = False
        self._stopped = False
        self._changed = threading.Condition()
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="stages", daemon=True)
        self._thread.start()

    def show(self, frame: StreamFrame, *, wait: bool = False) -> None:
        """Hands over a frame.

        Args:
            frame: of any stream; those of one stream in presentation order.
            wait: for room, rather than drop the oldest.
        """
        with self._changed:
            while wait and len(self._waiting) >= self._most and not self._stopped:
                self._changed.wait(1.0)
            if len(self._waiting) >= self._most:
                self._drop_one()
            self._waiting.append(frame)
            self._changed.notify_all()

    def forget(self, stream: str) -> None:
        """Drops what waits of a stream."""
        with self._changed:
            self._waiting = deque(f for f in self._waiting if f.stream != stream)
            self._changed.notify_all()

    def settle(self, timeout_s: float) -> bool:
        """Waits until nothing waits; returns whether that came."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._waiting or self._busy), timeout=timeout_s
            )

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread after its batch; returns whether it has."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self._chain.close()
        return True

    def _drop_one(self) -> None:
        by_the_way = (Purpose.AUDIT, Purpose.DEPENDENCY)
        places = (n for n, frame in enumerate(self._waiting) if frame.purpose in by_the_way)
        place = next(places, 0)
        frame = self._waiting[place]
        del self._waiting[place]
        self.dropped += 1
        self._done([Outcome(frame, {}, failed=True)])

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                count = min(self._batch, len(self._waiting))
                frames = [self._waiting.popleft() for _ in range(count)]
                self._busy = True
            self._done(self._chain.run(frames))
            del frames  # pixels of 8 frames, while it waits for the next
