"""Stock `transformers` classes, as anybody would load them: without remote code, quietly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triparty.common.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the progress bars and the advice of `transformers` for a while."""
    from logging import ERROR

    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(ERROR)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def load_model(folder: Path, auto_class: str = "AutoModelForCausalLM") -> PreTrainedModel:
    """A model in its checkpoint's dtype, ready for inference.

    Args:
        folder: the checkpoint.
        auto_class: the `transformers` class that picks the model's own.

    Raises:
        CheckpointError: the stock class does not find exactly its tensors in the folder.
    """
    import transformers

    with quiet():
        try:
            loaded: Any = getattr(transformers, auto_class).from_pretrained(
                folder,
                dtype="auto",
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
                experts_implementation="eager",  # the others have no float64
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{folder} does not load: {error}") from error
    model: PreTrainedModel
    model, found = loaded
    # Buffers that old checkpoints carry are unexpected; nothing may be missing or misshapen.
    for what in ("missing_keys", "mismatched_keys"):
        if found[what]:
            raise CheckpointError(f"{folder} does not load: {what} {sorted(found[what])[:3]}")
    model.train(False)
    return model


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's tokenizer.

    Raises:
        CheckpointError: it has none that can be read.
    """
    from transformers import AutoTokenizer

    with quiet():
        try:
            return AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder}: its tokenizer does not load: {error}") from error
