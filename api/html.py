"""The templates of pages for people. They escape every text that they are given."""

from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined


def open_templates(*folder: str) -> Environment:
    """Return the templates in a folder of this package, such as `approval`, `templates`. They are read once."""
    found = files("api").joinpath(*folder)
    return Environment(
        loader=DictLoader({file.name: file.read_text(encoding="utf-8") for file in found.iterdir()}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
