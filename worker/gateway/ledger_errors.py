"""What an error of the ledger, or of the uses of rules, means to the caller of the gateway."""

from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import CommitUnknown, DatabaseUnavailable, Overloaded
from worker.gateway.protocol import OutcomeUnknown


@contextmanager
def ledger_errors_as_unknown() -> Iterator[None]:
    """Turn an error of the ledger into OutcomeUnknown: even if this call wrote nothing, an earlier one may have."""
    try:
        yield
    except (DatabaseUnavailable, CommitUnknown, Overloaded) as error:
        raise OutcomeUnknown(f"the gateway's ledger: {type(error).__name__}") from error
