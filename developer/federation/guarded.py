"""Rounds that end, whatever sites do: a strategy around one of Flower's own.

Flower waits for ever for sites that never come and aggregates whatever has the right names.
Here a round asks those who are connected, waits until its deadline, leaves out with a reason in
the journal who is late, failed or sent what no honest site sends, and keeps the weights as they
were if too few are left. After each round the weights are on the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from triparty.common.errors import FederationError
from triparty.common.federation import EXAMPLES, SITE_WEIGHT, Weights
from triparty.developer.federation.flower import arrays_of, is_expired, record_of
from triparty.developer.federation.guard import metrics_refusal, refusal
from triparty.developer.federation.journal import Journal
from triparty.developer.federation.plan import Plan
from triparty.developer.federation.waiting import connected

_LEAST_TO_CLIP = 1e-12


@dataclass(frozen=True)
class Answers:
    """What came of a round.

    Attributes:
        taken: names of the sites whose updates count.
        left_out: why others do not, by name.
    """

    taken: tuple[str, ...]
    left_out: dict[str, str]


class GuardedStrategy(Strategy):
    """A strategy of Flower's with deadlines, guards, a journal and checkpoints.

    Args:
        inner: aggregates what is taken.
        plan: of the federation.
        journal: gets who was asked, taken and left out.
        keep: is given the weights after each round, with its number.
        expected: names of the sites that were registered; the first round waits for them.
        first_round: number of the first, where a run goes on.
        wait: sleeps; for tests.
    """

    def __init__(
        self,
        inner: Strategy,
        plan: Plan,
        journal: Journal,
        *,
        keep: Callable[[int, Weights], None],
        expected: Iterable[str] = (),
        first_round: int = 1,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Keeps what it is given."""
        self._inner = inner
        self._plan = plan
        self._journal = journal
        self._keep = keep
        self._expected = frozenset(expected)
        self._offset = first_round - 1
        self._wait = wait
        self._sent: Weights = {}
        self._asked: list[Message] = []
        self._names: dict[int, str] = {}
        self._in_vain = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Asks every site that is connected.

        Raises:
            FederationError: too few are, by the time that the plan gives them.
        """
        number = server_round + self._offset
        self._names = connected(
            grid, self._plan, number, expected=self._expected, wait=self._wait
        )
        self._sent = arrays_of(arrays)
        # Flower would wait for ever for a site that leaves between two looks.
        chosen = cast(Grid, SimpleNamespace(get_node_ids=lambda: list(self._names)))
        asked = list(self._inner.configure_train(number, arrays, config, chosen))
        for message in asked:  # who is late in this round is not asked again for it later
            message.metadata.ttl = self._plan.deadline_s
        self._asked = asked
        self._journal.write("asked", round=number, sites=sorted(self._names.values()))
        return asked

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregates the answers that may be.

        Raises:
            FederationError: too few answers, as often as the plan has patience for.
        """
        number = server_round + self._offset
        taken, answers = self._judge(replies)
        if len(taken) < self._plan.least_sites:
            return self._give_up(number, answers)
        arrays, metrics = self._inner.aggregate_train(number, taken)
        weights = {name: value.astype(np.float32) for name, value in arrays_of(arrays).items()}
        if not weights or not all(np.isfinite(value).all() for value in weights.values()):
            answers = Answers(
                (), answers.left_out | dict.fromkeys(answers.taken, "a sum of NaN")
            )
            return self._give_up(number, answers)
        self._in_vain = 0
        self._keep(number, weights)
        self._journal.write(
            "round",
            round=number,
            sites=list(answers.taken),
            left_out=answers.left_out,
            **{name: value for name, value in (metrics or {}).items() if name != SITE_WEIGHT},
        )
        return record_of(weights), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Asks nobody: each message costs seconds, and a loss comes with the weights."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Has nothing to aggregate."""
        return None

    def summary(self) -> None:
        """Lets Flower's strategy describe itself."""
        self._inner.summary()

    def _judge(self, replies: Iterable[Message]) -> tuple[list[Message], Answers]:
        """The messages to aggregate, and what is said about all."""
        asked = {
            message.metadata.message_id: self._names[message.metadata.dst_node_id]
            for message in self._asked
        }
        left_out = dict.fromkeys(asked.values(), self._late)
        taken: dict[str, Message] = {}
        for reply in replies:
            # By the question that it answers: what a reply says about its sender is its word.
            site = asked.pop(reply.metadata.reply_to_message_id, None)
            if site is None:
                continue
            reason = self._why_not(reply)
            if reason is None:
                taken[site] = reply
                del left_out[site]
            else:
                left_out[site] = reason
        return list(taken.values()), Answers(tuple(sorted(taken)), left_out)

    @property
    def _late(self) -> str:
        return f"no answer within {self._plan.deadline_s:g} s"

    def _why_not(self, reply: Message) -> str | None:
        if is_expired(reply):
            return self._late
        if reply.has_error():
            return f"it failed: {reply.error.reason or 'no reason given'!s:.300}"
        content = reply.content
        if len(content.array_records) != 1 or len(content.metric_records) != 1:
            return "an answer without one record of weights and one of metrics"
        metrics = next(iter(content.metric_records.values()))
        try:
            came = arrays_of(next(iter(content.array_records.values())))
        except (ValueError, TypeError, EOFError, SyntaxError) as error:
            return f"arrays that cannot be read: {error!s:.120}"
        reason = metrics_refusal(metrics) or refusal(
            self._sent,
            came,
            largest_norm=self._plan.largest_norm,
            # Flower's clipping divides by the norm.
            least_norm=_LEAST_TO_CLIP if self._plan.privacy else 0.0,
        )
        if reason is None:
            # Flower's strategies take arrays by their place, and sites send them as they like.
            (key,) = content.array_records
            content[key] = record_of({name: came[name] for name in self._sent})
            # What a site counts for is decided here, never by what it says of itself alone.
            examples = min(cast(int, metrics[EXAMPLES]), self._plan.most_examples)
            counts = self._plan.aggregation == "examples"
            metrics[SITE_WEIGHT] = float(examples) if counts else 1.0
        return reason

    def _give_up(self, number: int, answers: Answers) -> tuple[None, None]:
        """Throws a round away; ends the run if that happens too often."""
        self._in_vain += 1
        self._keep(number, self._sent)
        self._journal.write(
            "in-vain", round=number, sites=list(answers.taken), left_out=answers.left_out
        )
        if self._in_vain >= self._plan.patience:
            reasons = "; ".join(f"{name}: {why}" for name, why in answers.left_out.items())
            raise FederationError(
                f"{self._in_vain} rounds in a row had fewer than {self._plan.least_sites} "
                f"good answers: {reasons:.1000}"
            )
        return None, None
