"""Reads PromQL as far as our alerts and our dashboard use it: the grammar, and which metrics and labels are named.

It accepts less than Prometheus does. What it does not know is an error, so that no expression goes unread.
"""

import re
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>"(?:[^"\\]|\\.)*") |
    (?P<duration>\d+[smhdwy]|\$__rate_interval) |
    (?P<number>\d+(?:\.\d+)?) |
    (?P<name>[A-Za-z_:][A-Za-z0-9_:]*) |
    (?P<operator>=~|!~|!=|==|>=|<=|[-+*/<>=(){}\[\],])
    )""",
    re.VERBOSE,
)
AGGREGATIONS = {"sum", "max", "min", "count", "avg"}
# How many arguments each function takes, and whether its last one is a range of time.
FUNCTIONS = {"rate": (1, True), "increase": (1, True), "absent": (1, False), "histogram_quantile": (2, False)}
COMPARISONS = {">", "<", ">=", "<=", "==", "!="}
OPERATORS = COMPARISONS | {"+", "-", "*", "/", "and", "or"}
MATCHES = {"=", "!=", "=~", "!~"}


@dataclass(slots=True)
class Selector:
    """A metric that is named, the labels of it that matter, and the function over its range of time."""

    metric: str
    labels: set[str]
    function: str = ""


@dataclass(slots=True)
class Query:
    """One expression. Raises ValueError if it cannot be read."""

    text: str
    selectors: list[Selector] = field(default_factory=list)
    _tokens: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        at = 0
        while at < len(self.text.rstrip()):
            found = TOKEN.match(self.text, at)
            if found is None or found.lastgroup is None:
                raise ValueError(f"not PromQL at {self.text[at:]!r}")
            self._tokens.append((found.lastgroup, found.group(found.lastgroup)))
            at = found.end()
        self._tokens.append(("end", ""))
        self._expression()
        self._expect("")

    def _expression(self) -> None:
        self._term()
        while self._next() in OPERATORS:
            self._take()
            if self._next() == "on":
                self._take()
                self._names()
            self._term()

    def _term(self) -> None:
        kind, text = self._take()
        if kind == "number":
            return
        if text == "(":
            self._expression()
            self._expect(")")
        elif text in AGGREGATIONS:
            self._aggregation()
        elif text in FUNCTIONS:
            self._function(text)
        elif kind == "name" and text not in OPERATORS:
            self._selector(text, "")
        else:
            raise ValueError(f"{text!r} begins no term of {self.text!r}")

    def _aggregation(self) -> None:
        by: set[str] = set()
        if self._next() == "by":
            self._take()
            by = self._names()
        before = len(self.selectors)
        self._expect("(")
        self._expression()
        self._expect(")")
        for selector in self.selectors[before:]:
            selector.labels |= by

    def _function(self, name: str) -> None:
        arguments, takes_range = FUNCTIONS[name]
        self._expect("(")
        for _ in range(arguments - 1):
            self._term()
            self._expect(",")
        if takes_range:
            kind, metric = self._take()
            if kind != "name":
                raise ValueError(f"{name} takes a metric: {self.text!r}")
            self._selector(metric, name)
            self._expect("[")
            if self._take()[0] != "duration":
                raise ValueError(f"{name} takes a range of time: {self.text!r}")
            self._expect("]")
        else:
            self._expression()
        self._expect(")")

    def _selector(self, metric: str, function: str) -> None:
        labels: set[str] = set()
        if self._next() == "{":
            self._take()
            while self._next() != "}":
                _, label = self._take()
                _, match = self._take()
                kind, value = self._take()
                if match not in MATCHES or kind != "string":
                    raise ValueError(f"no match of a label: {label}{match}{value}")
                labels.add(label)
                if self._next() == ",":
                    self._take()
            self._expect("}")
        self.selectors.append(Selector(metric, labels, function))

    def _names(self) -> set[str]:
        self._expect("(")
        names: set[str] = set()
        while self._next() != ")":
            kind, text = self._take()
            if kind == "name":
                names.add(text)
            elif text != ",":
                raise ValueError(f"no label: {text!r}")
        self._expect(")")
        return names

    def _next(self) -> str:
        return self._tokens[0][1]

    def _take(self) -> tuple[str, str]:
        return self._tokens.pop(0)

    def _expect(self, text: str) -> None:
        found = self._take()[1]
        if found != text:
            raise ValueError(f"{found!r} instead of {text!r} in {self.text!r}")
