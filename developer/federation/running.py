"""The rounds of a federation, from where they stopped to the end."""

from __future__ import annotations

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid

from triparty.common.errors import TripartyError
from triparty.developer.federation.checkpoint import Checkpoint
from triparty.developer.federation.federation import Federation
from triparty.developer.federation.flower import record_of
from triparty.developer.federation.guarded import GuardedStrategy
from triparty.developer.federation.strategies import strategy_of


def run(federation: Federation, grid: Grid, context: Context) -> Checkpoint:
    """Runs the rounds that are left of a plan; journal and checkpoints are in the folder.

    Args:
        federation: whose plan it is.
        grid: of Flower; the way to the sites.
        context: of Flower's ServerApp.

    Raises:
        FederationError: it cannot go on; the journal says why, too.
    """
    journal = federation.journal()
    try:
        done = _rounds(federation, grid, context)
    except TripartyError as error:
        journal.write("stopped", reason=error.message)
        raise
    except Exception as error:
        journal.write("stopped", reason=f"{type(error).__name__}: {error}")
        raise
    journal.write("finished", round=done.round)
    return done


def _rounds(federation: Federation, grid: Grid, context: Context) -> Checkpoint:
    plan, last = federation.plan(), federation.last()
    federation.journal().write("began", round=last.round + 1, rounds=plan.rounds)
    if plan.secure:
        from triparty.developer.federation.masked_rounds import masked_rounds

        masked_rounds(federation, grid, context)
    elif last.round < plan.rounds:
        guarded = GuardedStrategy(
            strategy_of(plan),
            plan,
            federation.journal(),
            keep=federation.keep,
            expected=federation.sites(),
            first_round=last.round + 1,
        )
        guarded.start(
            grid,
            record_of(last.weights),
            num_rounds=plan.rounds - last.round,
            timeout=plan.deadline_s,
            train_config=ConfigRecord(dict(plan.task.config())),
        )
    return federation.last()
