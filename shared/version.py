"""The version of the service, as its installed package says."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("payment-service")
except PackageNotFoundError:
    # The service runs from a checkout that was never installed.
    VERSION = "0.0.0"
