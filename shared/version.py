"""Which version of the service this is."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("payment-service")
except PackageNotFoundError:  # run from a checkout that was never installed
    VERSION = "0.0.0"
