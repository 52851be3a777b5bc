"""Which quorate this is."""

from importlib.metadata import PackageNotFoundError, version


def get_version() -> str:
    """The installed distribution's version; `0+checkout` where the packages run from a checkout that was never installed."""
    try:
        return version("quorate")
    except PackageNotFoundError:
        return "0+checkout"
