"""LoRA adapters: what was trained on the original, made to fit its protected form."""

from triparty.developer.adapters.compiler import (
    ADAPTERS_FOLDER,
    ProtectedAdapter,
    protect_adapter,
)

__all__ = ["ADAPTERS_FOLDER", "ProtectedAdapter", "protect_adapter"]
