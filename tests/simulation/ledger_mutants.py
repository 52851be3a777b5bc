"""Broken rules of jobs and members, for the length of a `with`: schedules that do not catch them prove nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final
from unittest.mock import patch

from protocol import certificate
from protocol.jobs import life
from protocol.jobs.settlement import Job, Phase
from protocol.ledger import execution
from protocol.params import Params
from protocol.transactions import RevealPayload, compute_commitment
from protocol.units import Hash, Height, JobId, Milliseconds, NodeId
from tests.simulation import ledger_application, ledger_members

REAL_FORGET: Final = ledger_application.LedgerApplication.forget
REAL_CHECK_PHASE: Final = life._check_phase
REAL_STEP_JOB: Final = life.step_job
NOBODY: Final = bytes(32)


def forget_answers(application: ledger_application.LedgerApplication) -> None:
    """An answer and its salt are only in memory when the commit that binds them leaves."""
    REAL_FORGET(application)
    for member in application.members:
        member.answers.clear()


def allow_early_reveals(job: Job, phase: Phase, what: str) -> None:
    """A Reveal is valid while others may still commit."""
    if what != "Reveal":
        REAL_CHECK_PHASE(job, phase, what)


def commit_for_anybody(chain: Hash, job: JobId, member: NodeId, payload: RevealPayload, salt: Hash) -> Hash:
    """A commitment opens for whoever copied it."""
    return compute_commitment(chain, job, NOBODY, payload, salt)


def wait_for_everybody(job: Job, params: Params, height: Height, time_ms: Milliseconds) -> tuple[Job, bool]:
    """No window ever closes."""
    return REAL_STEP_JOB(job, params, height, time_ms) if not life.list_due(job) else (job, False)


def _patch(*changes: tuple[object, str, object]) -> Callable[[], Iterator[None]]:
    @contextmanager
    def broken_rule() -> Iterator[None]:
        with ExitStack() as stack:
            for target, name, broken in changes:
                stack.enter_context(patch.object(target, name, broken))
            yield

    return broken_rule


LEDGER_MUTANTS: Final = {
    "lost-answers": _patch((ledger_application.LedgerApplication, "forget", forget_answers)),
    "early-reveal": _patch((life, "_check_phase", allow_early_reveals)),
    "unbound-commitment": _patch(
        *((module, "compute_commitment", commit_for_anybody) for module in (life, certificate, ledger_members))
    ),
    "stuck-window": _patch((execution, "step_job", wait_for_everybody)),
}
"""Rule -> a context in which the ledger, or every honest member, breaks it."""
