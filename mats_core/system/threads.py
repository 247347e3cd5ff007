"""How PyTorch's threads wait for one another.  Imports nothing: it is for before PyTorch."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

# Measured with two threads on two cores: where threads spin for long (the default of GNU's OpenMP)
# an SVD takes four times as long as soon as anything else runs; where they sleep at once, an
# eigendecomposition of 192 × 192 takes twice as long on a quiet machine.
SPINS = "1000"  # some ten microseconds, then sleep


def set_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads spin shortly and then sleep, unless the environment says otherwise.

    OpenMP reads it when PyTorch is loaded.  GNU's takes the number, others the policy.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
