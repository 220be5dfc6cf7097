"""Where the operations are mounted. No other module spells these prefixes."""

PREFIX = "/api/v1"
# The platform's gateway forwards /api/payments/* without changing the path.
PLATFORM_PREFIX = "/api"
PAYMENTS = "/payments"
# The paths that accept payment intents.
INTENT_PATHS = frozenset({PREFIX + PAYMENTS, PLATFORM_PREFIX + PAYMENTS})
# Paths with this beginning need a token.
API_PATHS = "/api/"
# Monitoring asks for these every few seconds, so they are neither logged nor rate-limited.
QUIET_PATHS = frozenset({"/health", "/health/ready", "/metrics"})
