"""What the cloud saw of one turn, and what can be learnt from that, in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from triparty.common.deviceinfo import TOKENS, DeviceInfo
from triparty.device.inference.shields import Shields
from triparty.device.inference.traffic import Traffic


def account(traffic: Traffic, info: DeviceInfo, shields: Shields) -> Iterator[str]:
    """The lines of `/privacy`.

    Args:
        traffic: of the turn.
        info: of its model.
        shields: what was added to the keys.
    """
    if not traffic.requests:
        yield "Nothing was sent."
        return
    yield from _sent(traffic, info)
    yield "It did not get: your words, the answer's words, token numbers, the keys."
    yield ""
    yield "This is re-keying, not encryption. From that the cloud can learn:"
    yield "- when you asked, from which account, which model; how long question and answer are."
    if info.interface == TOKENS:
        yield (
            "- which tokens are equal, in this turn and in all others, and how often each "
            "comes: with enough text, counting alone reads much of it. It holds the keyed "
            "table, draws the answer's tokens and knows the end token."
        )
    else:
        yield (
            "- which tokens are equal, in this turn and in all others: a token is always the "
            "same row"
            + (
                " but for the noise"
                if shields.noise
                else ": with enough text, counting alone reads much of it"
            )
            + "; and how the model attends from one token to another."
        )
    yield (
        "- everything, if it knows the model's embedding table, the public model that it comes "
        "from, or has the help of somebody else who uses this model: then the words of this "
        "turn can be read."
    )
    if traffic.guesses:
        yield (
            f"- which of {traffic.guesses} guessed tokens were right ({traffic.wrong_guesses} "
            "were not, and are in no text): how well the answer can be guessed, and where it "
            "begins."
        )
    yield from _shielded(shields)
    yield "What was measured: docs/privacy.md, docs/security.md."


def _sent(traffic: Traffic, info: DeviceInfo) -> Iterator[str]:
    if info.interface == TOKENS:
        yield (
            f"The cloud got {traffic.rows} keyed token numbers as opaque words, in one request "
            f"of {traffic.bytes_sent:,} bytes, and wrote {traffic.bytes_received:,} bytes of "
            "such words back."
        )
    else:
        yield (
            f"The cloud got {traffic.rows} keyed rows of {info.width} numbers (up to position "
            f"{traffic.positions - 1}) in {traffic.requests} requests and "
            f"{_sessions(traffic)}: {traffic.bytes_sent:,} bytes. Back came keyed "
            f"{info.reply}, {traffic.bytes_received:,} bytes."
        )
    if traffic.sessions or info.interface == TOKENS:
        yield "The whole conversation was sent with this turn."
    else:
        yield "Of the conversation it got what is new since the turn before."


def _sessions(traffic: Traffic) -> str:
    if not traffic.sessions:
        return "the session of the turn before"
    return f"{traffic.sessions} session{'s' if traffic.sessions > 1 else ''}"


def _shielded(shields: Shields) -> Iterator[str]:
    if shields.noise:
        yield (
            f"Noise of {shields.noise:.0%} was added: it does not hide words from who has the "
            "key. Turns that are sent again have the noise that they had"
            + (", but with decoys another one, which averages out." if shields.decoys else ".")
        )
    if shields.block > 1:
        yield f"Lengths show in blocks of {shields.block}."
    if shields.decoys:
        yield (
            f"{shields.decoys} other texts were asked beside yours; who can read rows reads "
            "them all and has to guess which one is yours."
        )
