"""How threads wait is set before PyTorch is loaded, and only where nobody chose."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from mats_core.system.threads import SPINS, set_waiting, taking_threads

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("chosen", "spins", "policy"),
    [
        ({}, SPINS, "PASSIVE"),
        ({"GOMP_SPINCOUNT": "7"}, "7", "PASSIVE"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None, "ACTIVE"),
    ],
)
def test_what_somebody_chose_stays(chosen, spins, policy):
    environment = dict(chosen)
    set_waiting(environment)
    assert environment.get("GOMP_SPINCOUNT") == spins
    assert environment["OMP_WAIT_POLICY"] == policy


@pytest.mark.parametrize("module", ["mats_core", "mats_core.cli", "app"])
def test_importing_sets_it_before_pytorch(module):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_WAIT", "GOMP"))}
    code = (
        f"import os, sys, {module}; assert 'torch' not in sys.modules; "
        f"assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'; "
        f"assert os.environ['GOMP_SPINCOUNT'] == '{SPINS}'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean, check=True)


def test_one_thread_takes_fewer_and_no_other_does():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen: list[int] = []

        def look() -> None:
            seen.append(torch.get_num_threads())

        def fewer() -> None:
            with taking_threads(1):
                look()
                begun_meanwhile = threading.Thread(target=look)
                begun_meanwhile.start()
                begun_meanwhile.join()
            look()

        for one in (fewer, look):
            thread = threading.Thread(target=one)
            thread.start()
            thread.join()
        look()
        assert seen == [1, 3, 3, 3, 3]
    finally:
        torch.set_num_threads(before)
