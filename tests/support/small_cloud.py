"""A cloud of one small causal function behind the `Steps` interface, and its bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.errors import NotFoundError, UnreachableError
from triparty.common.keying import Bundle
from triparty.common.replies import SessionRecord, StepReply
from triparty.common.wire import Frame

V, D, POSITIONS = 40, 8, 64


class SmallCloud:
    """A causal function of all rows of a session, and a plan of faults by step number."""

    def __init__(
        self,
        *,
        epoch: int = 1,
        rows_per_step: int = 4,
        reply_rows: int = 64,
        sharpness: float = 1.0,
    ) -> None:
        rng = np.random.default_rng(5)
        self.mixing = rng.normal(size=(D, V)).astype(np.float32)
        self.epoch, self.rows_per_step = epoch, rows_per_step
        self.reply_rows, self.sharpness = reply_rows, sharpness
        self.last: dict[str, str] = {}
        self.taken_back = 0
        self.sessions: dict[str, list[np.ndarray]] = {}
        self.replies: dict[tuple[str, str], list[Frame]] = {}
        self.steps = 0
        self.opened = 0
        self.lose_before: set[int] = set()
        self.break_after: set[int] = set()
        self.break_always = False
        self.poison = False

    def open_session(self, model: str) -> SessionRecord:
        if model != "known":
            raise NotFoundError(f"no model '{model}'")
        self.opened += 1
        name = f"session-{self.opened}"
        self.sessions[name] = []
        return SessionRecord(
            name, 1, self.epoch, 0, self.rows_per_step, POSITIONS, self.reply_rows
        )

    def step(
        self,
        session: str,
        rows: Frame,
        *,
        position: int,
        request_id: str,
        reply: str,
        reply_rows: int = 1,
        rollback_of: str | None = None,
    ) -> StepReply:
        self.steps += 1
        if self.break_always:
            raise UnreachableError("the network is down")
        if self.steps in self.lose_before:
            self.sessions.clear()
        if session not in self.sessions:
            raise NotFoundError("no such session")
        if (session, request_id) not in self.replies:
            held = self.sessions[session]
            if rollback_of is not None:
                assert rollback_of == self.last[session], "the device named another step"
                assert position < len(held), "the device takes nothing back"
                self.taken_back += len(held) - position
                del held[position:]
            assert position == len(held), "the device sent rows twice, or skipped some"
            held.extend(rows.as_float32())
            self.last[session] = request_id
            assert 1 <= reply_rows <= min(len(rows.array), self.reply_rows)
            weighed = [np.tanh(row) * (i + 1) for i, row in enumerate(held)]
            states = np.cumsum(weighed, axis=0)[-reply_rows:]
            logits = (np.tanh(states) @ self.mixing * self.sharpness).astype(np.float32)
            if self.poison:
                logits[-1, 0] = np.nan
            self.replies[session, request_id] = [Frame.of(logits)]
        if self.steps in self.break_after:
            raise UnreachableError("the reply was lost on the way")
        return StepReply(tuple(self.replies[session, request_id]), position + len(rows.array))

    def read_source(self, session: str, rows: Frame) -> None:
        raise AssertionError("no decoder reads a text")

    def rollback_session(self, session: str, *, position: int) -> None:
        if session not in self.sessions:
            raise NotFoundError("no such session")
        del self.sessions[session][position:]

    def close_session(self, session: str) -> None:
        self.sessions.pop(session, None)


def small_bundle(folder: Path) -> Bundle:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(V, D)).astype(np.float32)
    save_file({"rows": rows}, folder / "embedding.safetensors")
    order = rng.permutation(V).astype(np.int32)
    save_file({"order": order}, folder / "head.safetensors")
    info = DeviceInfo(
        family="llama",
        task="causal-lm",
        interface="embeddings",
        width=D,
        vocabulary=V,
        outputs=V,
        max_positions=POSITIONS,
        positions=False,
        segments=0,
        image=None,
        dtype="float32",
        transport="float32",
        bos_id=None,
        eos_ids=(),
        pad_id=None,
        chat_template=None,
        replies=("logits",),
        epoch=1,
    )
    (folder / "device.json").write_bytes(info.to_json())
    words = {f"w{i}": i for i in range(V)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return Bundle.open(folder)
