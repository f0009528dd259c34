"""The version of the distribution: git's tags and commit when it was built or installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("reverse-stylize")
except PackageNotFoundError:  # imported from a clone that was never installed
    __version__ = "0+unknown"
