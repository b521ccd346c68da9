"""A model's chat template: from messages to the text of a prompt, rendered on the device.

The template is a Jinja program of the model's developer. It runs as `transformers` runs it, in
the immutable sandbox, and besides in a process of its own (`template_worker`) whose time and
memory are bounded by the operating system: a template that does not end, or fills the memory,
ends that process and nothing else.

Law: the text is that of `tokenizer.apply_chat_template`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triparty.common.errors import CheckpointError, RequestError
from triparty.common.keying import TOKENIZER_CONFIG_FILE, Bundle
from triparty.device.inference.template_worker import CPU_S, MAX_TEXT_CHARACTERS, MEMORY_BYTES

Message = Mapping[str, Any]
"""A message: `role`, `content` and whatever else the template reads; plain JSON values."""

MAX_TEMPLATE_CHARACTERS = 1 << 20
MAX_MESSAGES_BYTES = 8 << 20
WALL_S = 60.0  # the worker's CPU time ends it much earlier, unless it does not get any
_WORKER = "triparty.device.inference.template_worker"


class ChatTemplate:
    """A template and the process that renders it, started at first use.

    Args:
        source: the Jinja template.
        special_tokens: their texts by name, as `bos_token`.

    Raises:
        CheckpointError: a template longer than any that serves a purpose.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Starts nothing yet."""
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise CheckpointError(
                f"the chat template has {len(source)} characters, more than "
                f"{MAX_TEMPLATE_CHARACTERS}"
            )
        self._source, self._special_tokens = source, dict(special_tokens)
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, bundle: Bundle) -> ChatTemplate | None:
        """The template of a bundle, if it has one.

        Raises:
            CheckpointError: the tokenizer's configuration cannot be read.
        """
        source = bundle.info.chat_template
        if source is None:
            return None
        return cls(source, _special_tokens(bundle.folder / TOKENIZER_CONFIG_FILE))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The text of a conversation.

        Args:
            messages: at least one.
            add_generation_prompt: whether it ends with the beginning of an answer.

        Raises:
            RequestError: the template refuses these messages, or they are too long.
            CheckpointError: the template is broken, or does not end in time and memory.
        """
        if not messages:
            raise RequestError("a conversation has at least one message")
        said = [{k: v for k, v in message.items() if v is not None} for message in messages]
        variables = {
            **self._special_tokens,
            "messages": said,
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            request = json.dumps({"template": self._source, "variables": variables})
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"messages are plain JSON values: {error}") from error
        if len(request) > MAX_MESSAGES_BYTES + len(self._source):
            raise RequestError(
                f"the conversation has {len(request)} bytes, more than {MAX_MESSAGES_BYTES}: "
                "shorten it"
            )
        with self._lock:
            answer = json.loads(self._asked(request.encode() + b"\n"))
        if "text" in answer:
            return str(answer["text"])
        if answer.get("refused"):
            raise RequestError(f"the chat template refuses this conversation: {answer['why']}")
        raise CheckpointError(f"the model's chat template is broken: {answer.get('why')}")

    def close(self) -> None:
        """Ends the process, if one runs."""
        if self._worker is not None:
            _end(self._worker)
            self._worker = None

    def _asked(self, request: bytes) -> bytes:
        """The worker's answer to one request: a line."""
        worker = self._worker or self._started()
        if worker.stdin is None or worker.stdout is None:
            raise ValueError("the worker has no pipes")
        alarm = threading.Timer(WALL_S, worker.kill)
        alarm.daemon = True
        alarm.start()
        try:
            worker.stdin.write(request)
            worker.stdin.flush()
            line = worker.stdout.readline(12 * MAX_TEXT_CHARACTERS + 100)
        except BrokenPipeError:
            line = b""
        finally:
            alarm.cancel()
        if not line.endswith(b"\n"):
            self.close()
            raise CheckpointError(
                f"the model's chat template takes more than {CPU_S:g} seconds, "
                f"{MEMORY_BYTES >> 20} MB or {MAX_TEXT_CHARACTERS} characters: it is broken or "
                "hostile"
            )
        return line

    def _started(self) -> subprocess.Popen[bytes]:
        # Nothing of what the template could be after: no passphrase, no key.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("TRIPARTY_") and name != "PYTHONSTARTUP"
        }
        worker = subprocess.Popen(
            [sys.executable, "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # a Ctrl-C is not for it
        )
        weakref.finalize(self, _end, worker)
        self._worker = worker
        return worker


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                continue


def _special_tokens(file: Path) -> dict[str, str]:
    """The texts of special tokens by name, as the tokenizer's configuration has them."""
    try:
        document = json.loads(file.read_bytes()) if file.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{file} is not a JSON object")
    found: dict[str, str] = {}
    for name, value in document.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found
