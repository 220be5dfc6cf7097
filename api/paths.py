"""Where the operations are mounted. No other module spells these prefixes."""

from starlette.types import Scope

PREFIX = "/api/v1"
# The platform's gateway forwards /api/payments/* without changing the path.
PLATFORM_PREFIX = "/api"
PAYMENTS = "/payments"
# On the platform's paths they are below the payments.
REFUNDS = "/refunds"
# The pages at which customers approve payments.
APPROVE = "/approve"
APPROVAL_PATHS = (f"{APPROVE}/", f"{PLATFORM_PREFIX}{PAYMENTS}{APPROVE}/")
# The pages for those who watch and steer the service.
DASHBOARD = "/dashboard"
# Where gateways report what they settled late; the name of one may follow.
NOTIFICATIONS = "/webhooks/payment"
# The paths that accept payment intents.
INTENT_PATHS = frozenset({PREFIX + PAYMENTS, PLATFORM_PREFIX + PAYMENTS})
# Paths with this beginning need a token.
API_PATHS = "/api/"
# Monitoring asks for these every few seconds, so they are neither logged nor rate-limited.
QUIET_PATHS = frozenset({"/health", "/health/ready", "/metrics"})
# The member of the ASGI scope with ROOT_PATH, where it is set.
ROOT_PATH = "payments.root_path"


def shown_path(scope: Scope) -> str:
    """Return the path of a request as its client wrote it: with the prefix that a gateway stripped."""
    path: str = scope.get(ROOT_PATH, "") + scope["path"]
    return path
