"""The types of settings that say under which addresses browsers and proxies reach the API."""

import re
from typing import Annotated

from pydantic import AfterValidator

from shared.config.values import EMPTY_IS_UNSET, split_url

# An origin as browsers write it: in lower case, without a path. The port of the scheme is left out.
ORIGIN = re.compile(r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
DEFAULT_PORTS = {"http": 80, "https": 443}
ROOT_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
# Segments that a client removes from a path.
DOT_SEGMENTS = {".", ".."}


def _origin(text: str) -> str:
    if not ORIGIN.fullmatch(text):
        raise ValueError(
            "has a text that is not an origin such as https://shop.example: a scheme and a host in lower case, without "
            "a path. * is not allowed"
        )
    parts = split_url(text)
    if parts.port == DEFAULT_PORTS[parts.scheme]:
        raise ValueError(f"names the port {parts.port}, which browsers leave out of an origin: leave it out too")
    return text


def _root_path(text: str) -> str | None:
    path = text.rstrip("/")
    if path and (not ROOT_PATH.fullmatch(path) or DOT_SEGMENTS & set(path.split("/"))):
        raise ValueError("is not a path such as /shop")
    return path or None


def _base_url(text: str) -> str:
    url = text.rstrip("/")
    parts = split_url(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError("is not a URL such as https://pay.example")
    if parts.username is not None or parts.query or parts.fragment or not url.isascii() or re.search(r"[\s\\?#]", url):
        raise ValueError("must be scheme, host and path only, in ASCII, such as https://pay.example/shop")
    return url


type Origin = Annotated[str, AfterValidator(_origin)]
type RootPath = Annotated[str | None, EMPTY_IS_UNSET, AfterValidator(lambda path: path and _root_path(path))]
# A URL to which paths are added.
type BaseUrl = Annotated[str | None, EMPTY_IS_UNSET, AfterValidator(lambda url: url and _base_url(url))]
