"""What a fresh interpreter has loaded after some lines of Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def loads_none_of(lines: str, *modules: str) -> None:
    """Assert that none of these modules is loaded after the lines, which run at the root."""
    code = f"import sys; {lines}; sys.exit(', '.join(set({modules!r}) & set(sys.modules)) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
