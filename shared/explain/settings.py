"""What an explanation needs of the settings. The process that explains must have those of the workers."""

from shared.config.settings import Settings
from shared.explain.facts import GatewaySettings
from shared.simulation.decisions import OutcomeSettings
from shared.simulation.delays import Delays


def gateway_settings(settings: Settings) -> GatewaySettings:
    """Return the settings of the simulated gateway."""
    seed = settings.simulator_seed or ""
    low, high = settings.payment_processing_delay_min, settings.payment_processing_delay_max
    return GatewaySettings(
        outcomes=OutcomeSettings(
            seed, success_rate=settings.payment_success_rate, uses_test_amounts=settings.payment_failure_scenarios
        ),
        delays=Delays(seed, min_ms=low, max_ms=high, slow_max_ms=settings.steered_delay_max_ms),
        is_seeded=settings.simulator_seed is not None,
        delay_min_ms=low,
        delay_max_ms=high,
        backoff_s=settings.gateway_backoff_s,
        is_simulation_on=settings.is_simulation_on,
        checks_orders=settings.order_service_url is not None,
    )
