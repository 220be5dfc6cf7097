"""The commands that create rules by a preset; see `shared.simulation.presets`."""

from typing import Annotated, Literal

import typer

from cli.options import PlainCommand, duration
from cli.simulate.client import service_of
from cli.simulate.rules import EXPIRES_IN_S_MAX, print_created
from shared.simulation.presets import PRESETS, Preset

For = Annotated[
    int,
    typer.Option(
        "--for",
        parser=duration(EXPIRES_IN_S_MAX),
        metavar="TIME",
        help="How long it lasts, such as 90s, 5m or 1h.",
        show_default="5m",
    ),
]


def outage(
    context: typer.Context,
    expires_in_s: For = 300,
    kind: Annotated[
        Literal["unavailable", "timeout"],
        typer.Option(
            metavar="KIND",
            help="One of unavailable (no call reaches the gateway) and timeout (every answer is lost; half of the "
            "calls are carried out).",
        ),
    ] = "unavailable",
) -> None:
    """Let the gateway fail for all payments until the time is over.

    For example: `payments simulate outage --for 5m --kind timeout`.
    """
    _create(context, Preset.OUTAGE if kind == "unavailable" else Preset.OUTAGE_TIMEOUT, expires_in_s)


def slow_gateway(context: typer.Context, expires_in_s: For = 300) -> None:
    """Let every call to the gateway take five times as long until the time is over.

    For example: `payments simulate slow-gateway --for 1h`.
    """
    _create(context, Preset.SLOW_GATEWAY, expires_in_s)


def issuer_down(context: typer.Context, expires_in_s: For = 300) -> None:
    """Let every charge and authorization of a card fail with processing_error until the time is over.

    It makes two rules, for credit and for debit cards. For example: `payments simulate issuer-down --for 90s`.
    """
    _create(context, Preset.ISSUER_DOWN, expires_in_s)


def three_ds_abandon(context: typer.Context, expires_in_s: For = 300) -> None:
    """Let every card want 3-D Secure, for which no customer comes, until the time is over.

    Payments with a return_url require an action, and end as action_expired after ACTION_EXPIRES_S; the others fail
    with authentication_required. It makes two rules, for credit and for debit cards. For example:
    `payments simulate 3ds-abandon --for 10m`.
    """
    _create(context, Preset.THREE_DS_ABANDON, expires_in_s)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the group."""
    for name, preset in (
        ("outage", outage),
        ("issuer-down", issuer_down),
        ("slow-gateway", slow_gateway),
        ("3ds-abandon", three_ds_abandon),
    ):
        app.command(name, cls=PlainCommand)(preset)


def _create(context: typer.Context, preset: Preset, expires_in_s: int) -> None:
    service = service_of(context)
    for rule in PRESETS[preset]:
        print_created(service.ask("POST", "/simulation/rules", json=rule.body(expires_in_s=expires_in_s)))
