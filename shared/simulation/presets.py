"""Presets of rules: an outage, an issuer that is down, a slow gateway, and customers who never come back."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shared.lifecycle import FailureCode, MethodType
from shared.simulation.rules import Outage

_CARDS = (MethodType.CREDIT_CARD, MethodType.DEBIT_CARD)


class Preset(StrEnum):
    """The name of a preset."""

    OUTAGE = "outage"
    """No call reaches the gateway."""
    OUTAGE_TIMEOUT = "outage-timeout"
    """Every answer is lost; half of the calls are carried out."""
    SLOW_GATEWAY = "slow-gateway"
    """Every call to the gateway takes five times as long."""
    ISSUER_DOWN = "issuer-down"
    """Every charge and authorization of a card fails with processing_error."""
    THREE_DS_ABANDON = "3ds-abandon"
    """Every card wants 3-D Secure, for which no customer comes."""


@dataclass(frozen=True, slots=True)
class PresetRule:
    """A rule of a preset, in the words of `POST /simulation/rules`."""

    name: str
    effect: dict[str, Any]
    match: dict[str, Any] = field(default_factory=dict)

    def body(self, *, expires_in_s: int) -> dict[str, Any]:
        """Return the body of the request that creates the rule for so many seconds."""
        return {"name": self.name, "match": self.match, "effect": self.effect, "expires_in_s": expires_in_s}


def _of_cards(name: str, outcome: FailureCode) -> tuple[PresetRule, ...]:
    effect = {"outcomes": [outcome.value]}
    return tuple(PresetRule(f"{name}: {method}", effect, {"method_type": method.value}) for method in _CARDS)


PRESETS: dict[Preset, tuple[PresetRule, ...]] = {
    Preset.OUTAGE: (PresetRule("outage: unavailable", {"outage": Outage.UNAVAILABLE.value}),),
    Preset.OUTAGE_TIMEOUT: (PresetRule("outage: timeout", {"outage": Outage.TIMEOUT.value}),),
    Preset.SLOW_GATEWAY: (PresetRule("slow gateway", {"outage": Outage.SLOW.value}),),
    Preset.ISSUER_DOWN: _of_cards("issuer down", FailureCode.PROCESSING_ERROR),
    Preset.THREE_DS_ABANDON: _of_cards("3-D Secure abandoned", FailureCode.AUTHENTICATION_REQUIRED),
}
