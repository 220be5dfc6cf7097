"""Rules and calls of tests, and rule books that run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from shared.database.engine import Database
from shared.database.simulation_tables import simulation_rule_uses
from shared.ids import new_id
from shared.lifecycle import MethodType
from shared.simulation.calls import Call
from shared.simulation.gateways import GatewayName
from shared.simulation.rule_store import add_rule, find_rule
from shared.simulation.rules import Effect, Match, Rule
from worker.gateway.rule_book import RuleBook

NOW = datetime.now(UTC).replace(microsecond=0)
SEED = "a seed"
DECLINED = Effect(outcomes=("card_declined",))


def call(**changes: Any) -> Call:
    """Return the first call for a payment of 15.85 USD with a Visa credit card at Stripe."""
    payment_id = changes.pop("payment_id", None) or new_id()
    facts: dict[str, Any] = {
        "payment_id": payment_id,
        "seed_key": f"1 order {payment_id} 0",
        "method_type": MethodType.CREDIT_CARD,
        "scenario": None,
        "amount": 1585,
        "currency": "USD",
        "user_id": "1",
        "order_id": "shop-7",
        "metadata": {"channel": "web"},
        "brand": "visa",
        "last4": "4242",
        "gateway": GatewayName.STRIPE,
    }
    return Call(**facts | changes)


def rule(match: Match | None = None, effect: Effect = DECLINED, **changes: Any) -> Rule:
    """Return a rule that matches every call unless `match` says otherwise, and declines cards."""
    facts: dict[str, Any] = {
        "id": new_id(),
        "name": "declines",
        "times": None,
        "used": 0,
        "expires_at": None,
        "created_by": "admin:root",
        "created_at": NOW,
    }
    return Rule(match=match or Match(), effect=effect, **facts | changes)


async def stored(database: Database, *rules: Rule) -> None:
    """Store the rules, of which the last one is the newest."""
    async with database.transaction() as connection:
        for each in rules:
            await add_rule(connection, each)


async def used(database: Database, rule_id: UUID) -> tuple[int, int]:
    """Return how often the rule has fired, by its own count and by its uses."""
    async with database.read() as connection:
        found = await find_rule(connection, rule_id)
        of_rule = simulation_rule_uses.c.rule_id == rule_id
        uses = await connection.execute(select(func.count()).select_from(simulation_rule_uses).where(of_rule))
        return found.used if found else 0, int(uses.scalar_one())


@asynccontextmanager
async def running_book(database: Database, **options: Any) -> AsyncIterator[RuleBook]:
    """A rule book that knows the rules of the database."""
    book = RuleBook(database, **{"seed": SEED, "batch_max": 100, "queue_max": 2000, **options})
    run = asyncio.create_task(book.run())
    try:
        await book.refresh()
        yield book
    finally:
        book.close()
        await run


def ago(**duration: float) -> datetime:
    """Return the moment that was so long ago."""
    return NOW - timedelta(**duration)
