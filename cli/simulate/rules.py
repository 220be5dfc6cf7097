"""`payments simulate rules`: list, show, add, delete and test rules."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.options import PlainCommand, duration, number, whole_number
from cli.simulate.client import messages, service_of
from cli.simulate.rule_bodies import bounds, pairs, rule_body
from cli.terminal import aligned

EXPIRES_IN_S_MAX = 86_400
TIMES_MAX = 1_000_000
PAGE_MAX = 100
HEADINGS = ("id", "name", "state", "fired", "expires", "match", "effect")

RuleId = Annotated[str, typer.Argument(metavar="ID", help="The id of the rule, from `list`.")]
MethodType = Literal["CREDIT_CARD", "DEBIT_CARD", "PAYPAL"]
Operation = Literal["charge", "authorize", "capture", "refund"]
Pairs = Annotated[
    list[str] | None,
    typer.Option(metavar="PAIR", help="One of the payment's metadata, such as channel=web. More by further ones."),
]

app = typer.Typer(help="List, show, add, delete and test rules.", no_args_is_help=True, rich_markup_mode="markdown")


@app.command("list", cls=PlainCommand)
def list_rules(context: typer.Context) -> None:
    """List the rules, the newest first. One that cannot fire any more stays for a day, and `show` says why."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    cursor = None
    while True:
        params = {"limit": PAGE_MAX} | ({"cursor": cursor} if cursor else {})
        page = service_of(context).ask("GET", "/simulation/rules", params=params)
        rows += [_cells(rule) for rule in page["rules"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    for line in aligned(rows):
        print(line)


@app.command(cls=PlainCommand)
def show(context: typer.Context, rule_id: RuleId) -> None:
    """Show a rule as JSON, with its state and the reason for it."""
    _print_json(service_of(context).ask("GET", f"/simulation/rules/{rule_id}"))


@app.command(cls=PlainCommand)
def add(
    context: typer.Context,
    name: Annotated[str, typer.Option(metavar="NAME", help="A name for people. Draws depend on it.")] = "",
    outcome: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OUTCOME",
            help="What a call does: approve, network_error, timeout_charged, timeout_not_charged, pending, "
            "pending_lost or a failure code. Given several times, each is the next call's; the last one repeats.",
        ),
    ] = None,
    delay_ms: Annotated[
        str | None, typer.Option(parser=bounds, metavar="MS", help="How long a call takes, such as 500 or 500..2000.")
    ] = None,
    outage: Annotated[
        Literal["unavailable", "timeout", "slow"] | None,
        typer.Option(metavar="KIND", help="One of unavailable, timeout, slow. It needs --for."),
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="The user who pays.")] = None,
    order: Annotated[str | None, typer.Option(metavar="ID", help="The order, or its beginning and a *.")] = None,
    type_: Annotated[
        MethodType | None, typer.Option("--type", metavar="TYPE", help="CREDIT_CARD, DEBIT_CARD or PAYPAL.")
    ] = None,
    brand: Annotated[str | None, typer.Option(metavar="BRAND", help="The brand of the card, such as visa.")] = None,
    last4: Annotated[str | None, typer.Option(metavar="DIGITS", help="The last four digits of the card.")] = None,
    currency: Annotated[str | None, typer.Option(metavar="CODE", help="Such as USD.")] = None,
    amount: Annotated[
        str | None,
        typer.Option(parser=bounds, metavar="AMOUNT", help="In minor units, such as 1585, 1000.. or 1000..2000."),
    ] = None,
    metadata: Pairs = None,
    gateway: Annotated[
        Literal["stripe_mock", "square_mock", "paypal_mock"] | None,
        typer.Option(metavar="GATEWAY", help="stripe_mock, square_mock or paypal_mock."),
    ] = None,
    operation: Annotated[
        Operation | None, typer.Option(metavar="OPERATION", help="charge, authorize, capture or refund.")
    ] = None,
    percent: Annotated[
        float | None, typer.Option(parser=number(0, 100), metavar="NUMBER", help="The part of the operations.")
    ] = None,
    times: Annotated[
        int | None,
        typer.Option(parser=whole_number(1, TIMES_MAX), metavar="NUMBER", help="How many calls it fires on."),
    ] = None,
    expires_in_s: Annotated[
        int | None,
        typer.Option(
            "--for", parser=duration(EXPIRES_IN_S_MAX), metavar="TIME", help="How long it holds, such as 90s, 5m or 1h."
        ),
    ] = None,
    from_json: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Read the whole rule from this file instead; - = standard input."),
    ] = None,
) -> None:
    """Add a rule. Without options of a match, it is for every call.

    For example: `payments simulate rules add --name "no funds" --outcome insufficient_funds --brand visa --times 2`.
    """
    if from_json is not None:
        body = _read(from_json)
    else:
        match = {
            "user_id": user,
            "order_id": order,
            "method_type": type_,
            "brand": brand,
            "last4": last4,
            "currency": currency,
            "amount": amount,
            "metadata": pairs(metadata) or None,
            "gateway": gateway,
            "operation": operation,
            "percent": percent,
        }
        effect = {"outcomes": outcome or None, "delay_ms": delay_ms, "outage": outage}
        body = rule_body(name, match, effect, times=times, expires_in_s=expires_in_s)
    print_created(service_of(context).ask("POST", "/simulation/rules", json=body))


@app.command(cls=PlainCommand)
def delete(context: typer.Context, rule_id: RuleId) -> None:
    """Delete a rule. What it has done stays."""
    service_of(context).ask("DELETE", f"/simulation/rules/{rule_id}")
    messages.print(f"Deleted the rule {rule_id}.", markup=False)


@app.command(cls=PlainCommand)
def clear(context: typer.Context) -> None:
    """Delete all rules, whoever created them."""
    service_of(context).ask("DELETE", "/simulation/rules")
    messages.print("Deleted all rules.")


@app.command("test", cls=PlainCommand)
def try_rules(
    context: typer.Context,
    method: Annotated[
        str, typer.Option(metavar="ID", help="A payment method, or a ready-made one such as pm_test_visa.")
    ] = "pm_test_visa",
    amount: Annotated[int, typer.Option(parser=whole_number(1), metavar="AMOUNT", help="In minor units.")] = 1585,
    order: Annotated[str, typer.Option(metavar="ID", help="The order that is paid.")] = "1042",
    user: Annotated[str, typer.Option(metavar="ID", help="The user who pays.")] = "1",
    currency: Annotated[str, typer.Option(metavar="CODE", help="Such as USD.")] = "USD",
    metadata: Pairs = None,
    operation: Annotated[
        Operation, typer.Option(metavar="OPERATION", help="charge, authorize, capture or refund.")
    ] = "charge",
    call: Annotated[
        int, typer.Option(parser=whole_number(1, 1000), metavar="NUMBER", help="Which call of the operation: 1, 2, ...")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Say which rule would fire on a call, what it would do, and why every other rule would not. Nothing is done.

    For example: `payments simulate rules test --method pm_test_mastercard --amount 2000`.
    """
    body = {
        "payment_method_id": method,
        "amount": amount,
        "order_id": order,
        "user_id": user,
        "currency": currency,
        "metadata": pairs(metadata),
        "operation": operation,
        "call_number": call,
    }
    result = service_of(context).ask("POST", "/simulation/rules/test", json=body)
    if as_json:
        _print_json(result)
        return
    print(f"Call {result['call_number']} of the {result['operation']} ends with: {result['outcome']}")
    print(f"Decided by: {result['decided_by']}")
    if result["rule"]:
        print(f'The rule "{result["rule"]["name"]}" ({result["rule"]["id"]}) fires.')
    for rule in result["other_rules"]:
        print(f'The rule "{rule["name"]}" ({rule["id"]}) does not fire. {" ".join(rule["reasons"])}')


def print_created(rule: dict[str, Any]) -> None:
    """Print the id of a new rule alone, so that a shell can keep it, and the rest as a message."""
    until = f"until {rule['expires_at']}" if rule["expires_at"] else "until it is deleted or used up"
    print(rule["id"])
    messages.print(
        f'Created the rule "{rule["name"]}"; it holds {until}. Every worker knows it within a second.', markup=False
    )


def _cells(rule: dict[str, Any]) -> tuple[str, ...]:
    return (
        rule["id"],
        rule["name"],
        rule["state"],
        "" if rule["times"] is None else f"{rule['used']} of {rule['times']}",
        rule["expires_at"] or "never",
        json.dumps(rule["match"], ensure_ascii=False),
        json.dumps(rule["effect"], ensure_ascii=False),
    )


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _read(file: str) -> Any:
    try:
        return json.loads(sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{file} cannot be read as JSON: {error}", param_hint="--json") from None
