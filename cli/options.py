"""The options of the command line: what a value may be, in plain English, and a help text without types on flags."""

import re
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from shared.config.values import reason_of


class PlainCommand(TyperCommand):
    """A command whose help shows a word for the value of an option, and nothing for a flag, which takes none."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters of the command, with no type beside a flag or an argument."""
        return _without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options. The text of an error is a sentence without the name of its Python class."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = reason_of(error.message)
            raise


class PlainGroup(TyperGroup):
    """The program itself, whose help is as plain as that of its commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters of the program, with no type beside a flag."""
        return _without_types(super().get_params(ctx))


class Shape(StrEnum):
    """How arrivals are spread over the time."""

    STEADY = "steady"
    """At equal distances."""
    RAMP = "ramp"
    """At a rate that grows from zero."""
    BURST = "burst"
    """The arrivals of five seconds in the first of them."""
    POISSON = "poisson"
    """At random distances, as from independent customers."""


def number(least: float, most: float | None = None) -> Callable[[str], float]:
    """Return the parser of a number from `least` to `most`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= (float("inf") if most is None else most) or value == float("inf"):
            raise typer.BadParameter(f"{text} is not a number {_bounds(least, most)}.")
        return value

    return parse


def whole_number(least: int, most: int | None = None) -> Callable[[str | int], int]:
    """Return the parser of a whole number from `least` to `most`."""

    def parse(given: str | int) -> int:
        # The default of an option is parsed, too. More digits than this are beyond every bound.
        text = str(given)
        value = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else -1  # noqa: PLR2004
        if value < least or (most is not None and value > most):
            raise typer.BadParameter(f"{text} is not a whole number {_bounds(least, most)}.")
        return value

    return parse


def duration(most_s: int) -> Callable[[str | int], int]:
    """Return the parser of a time such as `90s`, `5m` or `1h`, in seconds, of `most_s` seconds at most."""

    def parse(given: str | int) -> int:
        # The default of an option is parsed, too.
        text = str(given)
        found = re.fullmatch(r"([0-9]{1,6})([smh]?)", text)
        seconds = int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0
        if not 1 <= seconds <= most_s:
            raise typer.BadParameter(
                f"{text} is not a time such as 90s, 5m or 1h, of one second to {most_s / 3600:g} hours."
            )
        return seconds

    return parse


def moment(text: str) -> datetime:
    """Return the time that `text` names. Raises BadParameter if it names none, or has no offset from UTC."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        value = datetime.min  # noqa: DTZ901 - it has no offset, so it is refused below
    if value.tzinfo is None:
        raise typer.BadParameter(f"{text} is not a time with an offset from UTC, such as 2026-11-24T15:00:00Z.")
    return value


def _without_types(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
        elif isinstance(param, TyperArgument):
            # There is no other way: its word stands in front of the type, and not in its place.
            param.display_type_rich = _no_type  # type: ignore[method-assign]
    return params


def _no_type(ctx: Any) -> None:
    """Show no type."""


def _bounds(least: float, most: float | None) -> str:
    return f"of {_shown(least)} or more" if most is None else f"from {_shown(least)} to {_shown(most)}"


def _shown(number: float) -> str:
    """Return a number as people write it: a large one without an exponent."""
    return f"{int(number):,}" if number == int(number) else f"{number:g}"
