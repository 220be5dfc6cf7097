"""Fills a database with payments that have ended, as months of work leave it. PostgreSQL generates the rows by itself.

Each payment has its history, entries of the gateway's ledger, its events, a delivery to one endpoint with its attempt,
for some a delivery to a callback URL, and its idempotency key: ten rows in all. `payments verify` finds no breach in
them. The database must be empty and used by no other process: a superuser writes, with foreign keys switched off.
"""

from string import Template

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config.settings import Settings
from shared.database.engine import open_database

MILLION = 1_000_000
# Payments in one transaction.
BATCH = 100_000
FILL_TIMEOUT_S = 600
ENDPOINT = "00000000-0000-7000-8000-00000000e001"
METHOD = "00000000-0000-7000-8000-00000000d001"

# Of each hundred, 94 are COMPLETED, 5 declined and 1 cancelled; six in ten are credit cards, captured in two steps.
NUMBERED = """
    CREATE TEMPORARY TABLE numbered ON COMMIT DROP AS
    SELECT numbers.*, at + interval '2 s' AS ended_at, (i % 5000)::text AS user_id, 500 + i % 90000 AS amount,
           CASE WHEN i % 100 = 0 THEN 'CANCELLED' WHEN i % 100 <= 5 THEN 'FAILED' ELSE 'COMPLETED' END AS status,
           CASE WHEN i % 100 = 0 THEN 2 ELSE 3 END AS length,
           CASE WHEN i % 10 = 0 THEN 'PAYPAL' WHEN i % 10 <= 3 THEN 'DEBIT_CARD' ELSE 'CREDIT_CARD' END AS method,
           CASE WHEN i % 10 = 0 THEN 'https://shop.example/hooks/payments' END AS callback_url,
           'ch_' || lpad(i::text, 24, '0') AS transaction_id, $ids
    FROM (SELECT i, timestamptz '$now' - make_interval(secs => ($total - i)::float8 / 50 + 60) AS at
          FROM generate_series($first, $last) AS i) AS numbers
"""

# A UUIDv7: 48 bits of milliseconds, then the kind of the row and the number of its payment.
ID = """(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(i % 4096), 3, '0')
    || '800' || {kind} || lpad(to_hex(i), 12, '0'))::uuid AS {name}"""
IDS = ("payment_id", "initiated_id", "ended_id", "delivery_id", "callback_id", "order_update_id")

STATEMENTS = (
    """
    INSERT INTO payments (id, user_id, created_by, order_id, payment_method_id, amount, currency, description, metadata,
        callback_url, idempotency_key, correlation_id, method, status, sequence, attempt, gateway_tries, gateway,
        gateway_transaction_id, gateway_details, outcome_rule, failure_code, failure_reason, created_at, updated_at,
        processed_at)
    SELECT payment_id, user_id, 'user:' || user_id, i::text, '$method', amount, 'USD', 'Two mugs', '{"cart": "c-1"}',
        callback_url, 'key-' || i, payment_id::text,
        jsonb_build_object('type', method, 'details', jsonb_build_object('brand', 'visa', 'last4', '4242'),
                           'scenario', NULL),
        status, length, length - 2, 0, CASE WHEN status <> 'CANCELLED' THEN 'stripe_mock' END,
        CASE WHEN status = 'COMPLETED' THEN transaction_id END,
        '{"avs_result": "Y", "cvc_result": "M", "authorization_code": "A1B2C3"}', 'rate',
        CASE WHEN status = 'FAILED' THEN 'card_declined' END,
        CASE WHEN status = 'FAILED' THEN 'The card was declined.' END,
        at, ended_at, CASE WHEN status <> 'CANCELLED' THEN ended_at END
    FROM numbered ORDER BY i
    """,
    """
    INSERT INTO payment_history
        (payment_id, sequence, previous_status, new_status, reason, metadata, created_at, created_by)
    SELECT payment_id, move.sequence, move.previous, move.next, move.reason, '{}', at,
           CASE WHEN move.by_worker THEN 'worker' ELSE 'user:' || user_id END
    FROM numbered, LATERAL (VALUES
        (1, NULL, 'PENDING', 'accepted', false, true),
        (2, 'PENDING', 'PROCESSING', 'claimed', true, status <> 'CANCELLED'),
        (2, 'PENDING', 'CANCELLED', 'cancelled', false, status = 'CANCELLED'),
        (3, 'PROCESSING', 'COMPLETED', 'gateway_approved', true, status = 'COMPLETED'),
        (3, 'PROCESSING', 'FAILED', 'gateway_declined', true, status = 'FAILED')
    ) AS move (sequence, previous, next, reason, by_worker, happened) WHERE happened ORDER BY i, move.sequence
    """,
    """
    INSERT INTO gateway_ledger (key, payment_id, step, kind, amount, currency, answer, created_at)
    SELECT payment_id || ':' || entry.kind, payment_id, entry.step, entry.kind, amount, 'USD',
           jsonb_build_object('gateway', 'stripe_mock', 'details', jsonb_build_object(), 'outcome_rule', 'rate')
           || CASE WHEN status = 'FAILED'
                   THEN jsonb_build_object('failure_code', 'card_declined', 'failure_reason', 'The card was declined.')
                   ELSE jsonb_build_object('transaction_id', transaction_id) END, at
    FROM numbered, LATERAL (VALUES
        (1, 'decline', status = 'FAILED'),
        (1, 'sale', status = 'COMPLETED' AND method <> 'CREDIT_CARD'),
        (1, 'authorize', status = 'COMPLETED' AND method = 'CREDIT_CARD'),
        (2, 'capture', status = 'COMPLETED' AND method = 'CREDIT_CARD')
    ) AS entry (step, kind, happened) WHERE happened ORDER BY i, entry.step
    """,
    """
    INSERT INTO events (id, payment_id, sequence, type, body, created_at)
    SELECT event.id, payment_id, event.sequence, event.type,
           '{"type":"' || event.type || '","timestamp":"2026-11-24T15:00:00.000Z","data":{"payment":{"id":"'
           || payment_id || '","padding":"' || repeat('x', 700) || '"},"sequence":' || event.sequence || '}}',
           event.at
    FROM numbered, LATERAL (VALUES
        (initiated_id, 1, 'payment.initiated', at), (ended_id, length, 'payment.' || lower(status), ended_at)
    ) AS event (id, sequence, type, at) ORDER BY i, event.sequence
    """,
    """
    INSERT INTO deliveries (id, event_id, payment_id, kind, endpoint_id, url, correlation_id, status, attempt, tries,
        attempts_made, created_at, updated_at, delivered_at)
    SELECT recipient.id, ended_id, payment_id, recipient.kind, recipient.endpoint_id, recipient.url, payment_id::text,
           'delivered', 1, 1, 1, ended_at, ended_at, ended_at
    FROM numbered, LATERAL (VALUES
        (delivery_id, 'endpoint', '$endpoint'::uuid, NULL, true),
        (callback_id, 'callback', NULL, callback_url, callback_url IS NOT NULL),
        (order_update_id, 'order', NULL, NULL, $with_order_updates AND status = 'COMPLETED')
    ) AS recipient (id, kind, endpoint_id, url, happened) WHERE happened ORDER BY i
    """,
    """
    INSERT INTO delivery_attempts (delivery_id, number, started_at, duration_ms, status_code, response_body)
    SELECT deliveries.id, 1, ended_at, 12, 200, 'ok'
    FROM numbered JOIN deliveries ON deliveries.payment_id = numbered.payment_id ORDER BY i
    """,
    """
    INSERT INTO idempotency_keys (scope, key, fingerprint, object_id, created_at)
    SELECT 'user:' || user_id || ' POST /payments', 'key-' || i, repeat('f', 64), payment_id, at
    FROM numbered ORDER BY i
    """,
)

INSERT_ENDPOINT = """
    INSERT INTO webhook_endpoints (id, created_by, name, url, event_types, enabled, secret, created_at, updated_at)
    VALUES ('$endpoint', 'service:bench', 'bench', 'http://127.0.0.1:9/',
            '["payment.cancelled", "payment.completed", "payment.failed"]', true, '', 'epoch', 'epoch')
"""


async def fill(settings: Settings, payments: int = MILLION, *, with_order_updates: bool = False) -> None:
    """Write `payments` payments with all their rows into the empty, migrated database of `settings`.

    With `with_order_updates` each completed payment has a delivered order update, too.
    """
    database = open_database(settings.model_copy(update={"database_timeout_s": FILL_TIMEOUT_S}))
    try:
        async with database.transaction() as connection:
            now = await database.clock.now(connection)
            await _execute(connection, INSERT_ENDPOINT)
        for first in range(1, payments + 1, BATCH):
            async with database.transaction() as connection:
                # Switches foreign keys off. The rows fulfil them.
                await _execute(connection, "SET LOCAL session_replication_role = replica")
                await _execute(connection, "SET LOCAL synchronous_commit = off")
                last = min(first + BATCH - 1, payments)
                await _execute(connection, NUMBERED, now=now, total=payments, first=first, last=last)
                for statement in STATEMENTS:
                    await _execute(connection, statement, with_order_updates=with_order_updates)
        async with database.read() as connection:
            # Autovacuum would have done this over the months.
            await _execute(connection, "VACUUM ANALYZE")
    finally:
        await database.dispose()


async def _execute(connection: AsyncConnection, statement: str, **values: object) -> None:
    ids = ", ".join(ID.format(kind=kind, name=name) for kind, name in enumerate(IDS))
    template = Template(statement)
    await connection.exec_driver_sql(template.substitute(values, ids=ids, endpoint=ENDPOINT, method=METHOD))
