"""Durations as people write them: `90`, `15m`, `36h`, `4d` or `1d12h`."""

import re

import typer

_UNITS_S = {"d": 24 * 3600, "h": 3600, "m": 60, "s": 1}
_PARTS = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s?)?")


def seconds_of(text: str) -> int:
    """Return the seconds of a duration: a number of seconds, or numbers with d, h, m and s. Raises BadParameter."""
    found = _PARTS.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        raise typer.BadParameter(f"{text} is not a duration such as 90, 15m, 36h, 4d or 1d12h.")
    return sum(int(part) * unit for part, unit in zip(found.groups(), _UNITS_S.values(), strict=True) if part)


def in_words(seconds: float) -> str:
    """Return a duration in its two largest units, such as `4 d 2 h`."""
    left, parts = round(seconds), []
    for name, unit in _UNITS_S.items():
        count, left = divmod(left, unit)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"
