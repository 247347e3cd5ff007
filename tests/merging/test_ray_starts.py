"""A Ray cluster that does not start, or does not answer: tried again on this machine, then said."""

from __future__ import annotations

import os
from typing import Any

import pytest

from mats_core.errors import InputError
from mats_core.merging import ray as distributed


class Busy:
    """Ray on a machine that is too busy for so many starts."""

    def __init__(self, failures: int) -> None:
        self.failures, self.told = failures, list[dict[str, Any]]()

    def is_initialized(self) -> bool:
        return False

    def init(self, **settings: Any) -> None:
        self.told.append(settings)
        if len(self.told) <= self.failures:
            raise Exception("The current node timed out during startup.\nMore of it")

    def shutdown(self) -> None:
        pass


@pytest.mark.parametrize("address", [None, "1.2.3.4:6379"])
@pytest.mark.parametrize("failures", [0, 1, 3])
def test_a_cluster_is_started_again_and_asked_once(monkeypatch, address, failures):
    found = Busy(failures)
    monkeypatch.setattr(distributed, "_ray", lambda: found)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    attempts = distributed.STARTS if address is None else 1
    if failures < attempts:
        assert distributed._connected() is found
        assert len(found.told) == failures + 1
        assert ("runtime_env" in found.told[-1]) == (address is not None)
        return
    with pytest.raises(InputError, match="timed out during startup") as caught:
        distributed._connected()
    assert (address or "on this machine") in str(caught.value)
    assert "engine: local" in str(caught.value)
    assert len(found.told) == attempts
