"""The words of refusals that depend on a state: which object, what state it is in, since when, and what can be done.

It words only what it is given: the caller decides whether the client may see the object.
"""

from datetime import datetime

from shared.database.clock import rfc3339


def in_state(thing: str, state: str, since: datetime) -> str:
    """Return a clause such as `The payment has been COMPLETED since 2026-11-27T18:48:57.118Z`, without a period."""
    return f"{thing} has been {state} since {rfc3339(since)}"


def refused_in_state(thing: str, state: str, since: datetime, *, so: str, remedy: str) -> str:
    """Return the text of a refusal: the state, what follows from it (`so`), and what the client can do (`remedy`).

    `so` continues the sentence after "so". `remedy` is one or more whole sentences.
    """
    return f"{in_state(thing, state, since)}, so {so}. {remedy}"
