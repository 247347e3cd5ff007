"""`python -m mats_core`, or `mats` where the package is installed."""

from __future__ import annotations

import sys

from .cli import main as run


def main() -> int:
    """The exit code of one command; also the console script `mats`."""
    return run()


if __name__ == "__main__":
    sys.exit(main())
