"""The routes of the application, in the order in which a request is compared with them."""

from functools import cache

from fastapi import APIRouter
from starlette.routing import BaseRoute

from api.approval import routes as approval
from api.dashboard import routes as dashboard
from api.openapi.document import operation_id
from api.paths import PAYMENTS, PLATFORM_PREFIX, PREFIX, REFUNDS
from api.routes import (
    api_keys,
    callback_secret,
    docs,
    explain,
    health,
    notifications,
    operations,
    payment_intents,
    payment_methods,
    payment_requests,
    payments,
    ready_made,
    refunds,
    rule_tests,
    simulation_clock,
    simulation_rules,
    webhook_deliveries,
    webhook_endpoints,
)


@cache
def all_routes(*, has_dashboard: bool) -> list[BaseRoute]:
    """Return the routes of every application of this process.

    They are shared, because FastAPI reads the operations with the first requests, which takes it 30 to 70 ms each.
    """
    root = APIRouter(generate_unique_id_function=operation_id)
    root.include_router(health.router)
    root.include_router(docs.router)
    root.include_router(approval.router)
    root.include_router(payment_methods.router, prefix=f"{PREFIX}/payment-methods")
    root.include_router(refunds.of_payments, prefix=PREFIX)
    root.include_router(refunds.router, prefix=f"{PREFIX}{REFUNDS}")
    for module in (
        ready_made,
        payment_intents,
        payments,
        explain,
        payment_requests,
        webhook_endpoints,
        webhook_deliveries,
        callback_secret,
        notifications,
        api_keys,
        simulation_rules,
        rule_tests,
        simulation_clock,
        operations,
    ):
        root.include_router(module.router, prefix=PREFIX)
    # The platform's gateway forwards /api/payments/* without changing the path. Payments come last: else "methods" or
    # "approve" would be taken for the id of a payment. The description has each operation once.
    root.include_router(approval.router, prefix=f"{PLATFORM_PREFIX}{PAYMENTS}")
    root.include_router(ready_made.router, prefix=f"{PLATFORM_PREFIX}{PAYMENTS}", include_in_schema=False)
    root.include_router(payment_methods.router, prefix=f"{PLATFORM_PREFIX}{PAYMENTS}/methods", include_in_schema=False)
    root.include_router(refunds.router, prefix=f"{PLATFORM_PREFIX}{PAYMENTS}{REFUNDS}", include_in_schema=False)
    for router in (
        payment_intents.router,
        payments.router,
        explain.router,
        payment_requests.router,
        refunds.of_payments,
    ):
        root.include_router(router, prefix=PLATFORM_PREFIX, include_in_schema=False)
    if has_dashboard:
        root.include_router(dashboard.router)
    return root.routes
