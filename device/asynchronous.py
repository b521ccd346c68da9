"""`AsyncDevice`: `Device` for programs with an event loop.

The work is that of `Device`, in threads: one for each answer, in which its steps take turns
with nothing else, so that an answer whose reader left is closed after the step in flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, Unpack

from triparty.common.errors import CloudError, SettingsError
from triparty.device.inference.batch import AT_ONCE
from triparty.device.inference.generation import Generation, Parts
from triparty.device.inference.inputs import OnShortened, warn_shortened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from triparty.common.sampling import SamplingOptions
    from triparty.device.client import Device
    from triparty.device.home import HeldModel
    from triparty.device.inference.answer import Piece
    from triparty.device.inference.completions import StockEngine
    from triparty.device.inference.images import ImageLike
    from triparty.device.inference.inputs import Input
    from triparty.device.inference.opened import Prompt
    from triparty.device.inference.options import OptionChanges
    from triparty.device.inference.reading import Classification
    from triparty.device.pull import Pulled


class AsyncDevice:
    """The answers of a device, awaited.

    Args:
        device: does the work.
    """

    def __init__(self, device: Device) -> None:
        """Starts nothing yet."""
        self.device = device

    async def pull(self, name: str | None = None) -> Pulled:
        """As `Device.pull`."""
        return await asyncio.to_thread(self.device.pull, name)

    async def models(self) -> list[HeldModel]:
        """As `Device.models`."""
        return await asyncio.to_thread(self.device.models)

    async def embed(
        self,
        model: str,
        inputs: Sequence[Input],
        *,
        on_shortened: OnShortened = warn_shortened,
        deadline_s: float | None = None,
    ) -> NDArray[np.float32]:
        """As `Device.embed`."""
        return await asyncio.to_thread(
            self.device.embed,
            model,
            inputs,
            on_shortened=on_shortened,
            deadline_s=deadline_s,
        )

    async def classify(
        self,
        model: str,
        inputs: Sequence[Input],
        *,
        on_shortened: OnShortened = warn_shortened,
        deadline_s: float | None = None,
    ) -> list[Classification]:
        """As `Device.classify`."""
        return await asyncio.to_thread(
            self.device.classify,
            model,
            inputs,
            on_shortened=on_shortened,
            deadline_s=deadline_s,
        )

    async def stream(
        self,
        model: str,
        prompt: Prompt,
        *,
        image: ImageLike | None = None,
        options: SamplingOptions | None = None,
        engine: StockEngine | None = None,
        **changes: Unpack[OptionChanges],
    ) -> AsyncGenerator[Piece | Generation]:
        """As `Device.stream`; no step is taken before it is asked for."""
        parts = self.device.stream(
            model, prompt, image=image, options=options, engine=engine, **changes
        )
        async with aclosing(awaited(parts)) as answer:
            async for part in answer:
                yield part

    async def generate(
        self,
        model: str,
        prompt: Prompt,
        *,
        options: SamplingOptions | None = None,
        engine: StockEngine | None = None,
        **changes: Unpack[OptionChanges],
    ) -> Generation:
        """As `Device.generate`."""
        return await _whole(
            self.stream(model, prompt, options=options, engine=engine, **changes)
        )

    async def describe(
        self,
        model: str,
        image: ImageLike,
        prompt: Prompt,
        *,
        options: SamplingOptions | None = None,
        **changes: Unpack[OptionChanges],
    ) -> Generation:
        """As `Device.describe`."""
        return await _whole(self.stream(model, prompt, image=image, options=options, **changes))

    async def generate_batch(
        self,
        model: str,
        prompts: Sequence[Prompt],
        *,
        options: SamplingOptions | None = None,
        engine: StockEngine | None = None,
        at_once: int = AT_ONCE,
        **changes: Unpack[OptionChanges],
    ) -> list[Generation]:
        """As `Device.generate_batch`; cancelling it ends all answers."""
        if at_once < 1:
            raise SettingsError(f"at-once must be at least 1, got {at_once}")
        gate = asyncio.Semaphore(at_once)

        async def answered(prompt: Prompt) -> Generation:
            async with gate:
                return await self.generate(
                    model, prompt, options=options, engine=engine, **changes
                )

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(answered(prompt)) for prompt in prompts]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return [task.result() for task in tasks]


async def awaited(parts: Parts) -> AsyncGenerator[Piece | Generation]:
    """An answer whose parts are made in a thread of its own, each when it is asked for."""
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, "answer")
    try:
        while True:
            part = await loop.run_in_executor(thread, next, parts, None)
            if part is None:
                return
            yield part
    finally:
        thread.submit(parts.close)  # behind the step in flight, if one is
        thread.shutdown(wait=False)


async def _whole(parts: AsyncGenerator[Piece | Generation]) -> Generation:
    """The whole answer, which comes after its pieces."""
    async with aclosing(parts):
        async for part in parts:
            if isinstance(part, Generation):
                return part
    raise CloudError("the answer ended without an end")
