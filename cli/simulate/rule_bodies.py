"""The JSON of a rule, from the options of a command."""

import re
from collections.abc import Sequence
from typing import Any

import typer


def bounds(text: str) -> int | dict[str, int]:
    """Return a number, or the bounds that a text such as `1000..2000` or `1000..` names."""
    found = re.fullmatch(r"([0-9]{0,18})(\.\.)?([0-9]{0,18})", text)
    if found is None or text in {"", ".."} or (found[3] and not found[2]):
        raise typer.BadParameter(f"{text} is not a number such as 500, or a range such as 500..2000.")
    if not found[2]:
        return int(found[1])
    return {name: int(bound) for name, bound in (("min", found[1]), ("max", found[3])) if bound}


def pairs(texts: Sequence[str] | None) -> dict[str, str]:
    """Return the pairs of texts such as `channel=web`."""
    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{text} is not a pair such as channel=web.", param_hint="--metadata")
        found[key] = value
    return found


def rule_body(
    name: str, match: dict[str, Any], effect: dict[str, Any], *, times: int | None, expires_in_s: int | None
) -> dict[str, Any]:
    """Return the body of `POST /simulation/rules`. Without a name, the rule is named after what it does."""
    given = _given(effect)
    named_after = ", ".join(str(value) for value in given.values())
    ends = _given({"times": times, "expires_in_s": expires_in_s})
    return {"name": (name or named_after)[:100], "match": _given(match), "effect": given, **ends}


def _given(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
