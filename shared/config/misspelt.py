"""Finds variables of the environment that are meant as settings and are spelled otherwise.

An unknown variable is no error: most of an environment is meant for other programs. It must never log a value.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import structlog

log = structlog.get_logger(__name__)

# How alike two names are (difflib's ratio) if one is the other misspelt. AUTH_SERVICE_PORT, which Kubernetes sets for a
# service of that name, has 0.85 of AUTH_SERVICE_URL.
LIKENESS_MIN = 0.86
# Names of one word, such as HOST, are too short to tell a slip from another word.
WORDS_MIN = 2


def warn_of_misspelt(environment: Mapping[str, str], settings: Iterable[str]) -> None:
    """Log each variable that is probably a misspelt setting, with the setting's name. No value is logged."""
    for name, meant in misspelt(environment, settings).items():
        log.warning("settings.misspelt", variable=name, probably_meant=meant)


def misspelt(environment: Iterable[str], settings: Iterable[str]) -> dict[str, str]:
    """Return the setting that each misspelt variable probably means. `settings` are names of fields."""
    known = {name.upper() for name in settings}
    candidates = sorted(name for name in environment if name.upper() not in known)
    found = {name: _meant(name.upper(), known) for name in candidates}
    return {name: meant for name, meant in found.items() if meant is not None}


def _meant(name: str, known: set[str]) -> str | None:
    """Return the setting that has one word more or less, or else the one that is spelled almost alike."""
    words = set(name.split("_"))
    if len(words) >= WORDS_MIN:
        for setting in sorted(known):
            if len(words ^ set(setting.split("_"))) == 1 and len(words & set(setting.split("_"))) >= WORDS_MIN:
                return setting
    return next(iter(get_close_matches(name, known, n=1, cutoff=LIKENESS_MIN)), None)
