"""Screenshots of the terminal as SVG. They load no fonts from the network and look the same in every viewer."""

import io
import re
from html import escape, unescape

from rich.console import Console, RenderableType

FONTS = "Fira Code, Menlo, Consolas, DejaVu Sans Mono, monospace"
FONT_FACES = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
RUNS = re.compile(r'<text class="(?P<kind>[^"]*)" x="(?P<x>[\d.]+)" y="(?P<y>[\d.]+)" textLength="(?P<width>[\d.]+)"'
                  r'(?P<clip>[^>]*)>(?P<words>[^<]*)</text>')  # fmt: skip
# Words that are further apart than one space are placed separately.
WORDS = re.compile(r"\S+(?: \S+)*")


def screenshot(content: RenderableType, *, width: int, title: str) -> str:
    """Return an SVG of `content` as a terminal of this width shows it; `title` is the command."""
    console = Console(record=True, width=width, force_terminal=True, file=io.StringIO(), highlight=False)
    console.print(content)
    svg = console.export_svg(title=title, unique_id=title.replace(" ", "-"))
    return RUNS.sub(_placed, FONT_FACES.sub("", svg).replace("Fira Code, monospace", FONTS)) + "\n"


def _placed(run: re.Match[str]) -> str:
    """Return one run of text as parts that are placed separately, because some viewers drop repeated spaces."""
    text = unescape(run["words"]).replace("\xa0", " ")
    if not text.strip():
        return ""
    cell = float(run["width"]) / len(text)
    return "".join(
        f'<text class="{run["kind"]}" x="{float(run["x"]) + part.start() * cell:g}" y="{run["y"]}"'
        f' textLength="{len(part[0]) * cell:g}"{run["clip"]}>{escape(part[0], quote=False)}</text>'
        for part in WORDS.finditer(text)
    )
