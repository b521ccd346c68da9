"""The values at the engine's seam."""

from __future__ import annotations

import pytest

from triparty.cloud.serving.engine import Reply, ReplyKind
from triparty.common.errors import RequestError


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("hidden", Reply(ReplyKind.HIDDEN)),
        ("logits", Reply(ReplyKind.LOGITS)),
        ("id", Reply(ReplyKind.ID)),
        ("topk=40", Reply(ReplyKind.TOPK, 40)),
    ],
)
def test_replies_are_read(text: str, reply: Reply) -> None:
    assert Reply.parse(text) == reply


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hidden",
        "logits=",
        "id=1",
        "topk",
        "topk=",
        "topk=0",
        "topk=-1",
        "topk=٣",
        "topk=1e3",
        "topk=" + "9" * 5000,
        "sample",
        "hidden,logits",
    ],
)
def test_other_replies_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="Triparty-Reply"):
        Reply.parse(text)
