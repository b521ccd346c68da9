"""Where a model's weights lie, and as which numbers: accelerate's device maps from settings.

A map is made of the model's shapes before any weight is read, and each tensor is read from its
file straight to its device, so that no whole copy of the model passes through memory. A layer's
caches and masks are made where its queries are, which is where the layer runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from triparty.cloud.serving.settings import ModelSettings
from triparty.common.errors import SettingsError

AUTO = "auto"
DISK = "disk"


@dataclass(frozen=True)
class Placement:
    """Where weights go.

    Attributes:
        device: `cpu`, `cuda`, `cuda:1`, or `auto`: shared among all accelerators, then memory;
            what is left stays in its files and is read at every pass.
        max_memory: most bytes of weights on each device that `auto` may use, by number or
            `cpu` ("20GiB"); empty for what is free on all.
        dtype: `float32`, `bfloat16` or `float16`; None: as the developer stored them.
    """

    device: str = AUTO
    max_memory: Mapping[str, str] = field(default_factory=dict)
    dtype: str | None = None

    @classmethod
    def of(cls, settings: ModelSettings) -> Placement:
        """What the operator chose.

        Raises:
            SettingsError: a device that this machine does not have.
        """
        placement = cls(settings.device, settings.max_memory, settings.dtype)
        placement.check()
        return placement

    def check(self) -> None:
        """Raises SettingsError unless this machine has the devices."""
        named = [f"cuda:{each}" for each in self.max_memory if each.isdigit()]
        count = torch.cuda.device_count()
        for name in [self.device, *named]:
            kind, _, number = name.partition(":")
            if kind == "cuda" and int(number or 0) >= count:
                raise SettingsError(
                    f"device '{name}': torch sees {count} CUDA devices: set device to one of "
                    "them, to auto or to cpu"
                )

    def retype(self, config: PreTrainedConfig) -> None:
        """Gives a configuration the type of weights that the operator chose, if one."""
        if self.dtype is not None:
            config.dtype = getattr(torch, self.dtype)

    def options(self) -> dict[str, Any]:
        """What `from_pretrained` takes."""
        if self.device != AUTO:
            return {"device_map": {"": torch.device(self.device)}}
        if not self.max_memory:
            return {"device_map": AUTO}
        most = {int(k) if k.isdigit() else k: v for k, v in self.max_memory.items()}
        return {"device_map": AUTO, "max_memory": most}


def input_device(model: PreTrainedModel) -> torch.device:
    """Where a model takes its inputs: an accelerator if it has one."""
    devices = [each for each in devices_of(model) if each not in ("cpu", DISK)]
    return torch.device(devices[0] if devices else "cpu")


def devices_of(model: PreTrainedModel) -> list[str]:
    """The devices that hold a model's weights, `disk` for files, in the order of its layers."""
    placed = getattr(model, "hf_device_map", None) or {"": model.device}
    names = [f"cuda:{each}" if isinstance(each, int) else str(each) for each in placed.values()]
    return list(dict.fromkeys(names))


@contextmanager
def at_hand(module: torch.nn.Module) -> Iterator[None]:
    """Has a module's weights in memory while the block runs, wherever they lie."""
    from accelerate.utils import align_module_device  # type: ignore[import-untyped]

    with align_module_device(module):
        yield
