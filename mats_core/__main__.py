"""`python -m mats_core`."""

from __future__ import annotations

import sys

from .cli import main
from .system import set_waiting

if __name__ == "__main__":
    set_waiting()
    sys.exit(main())
