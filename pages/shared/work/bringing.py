"""Models and data from elsewhere: files that are dropped, and models of the hub.

Each is a door of its own, which a shared server keeps shut.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mats_core.checkpoints import Dropped, hub
from mats_core.checkpoints import receive as put_away

from .. import policy
from ..policy import Act
from .jobs import Tell


def receive(dropped: Sequence[Dropped], home: Path) -> list[Path]:
    """Where dropped files were put below `home`; raises `InputError` for what is no model."""
    policy.current().require(Act.UPLOADS)
    return put_away(dropped, home)


def is_cached(reference: str) -> bool:
    """Whether a model of the hub lies in this machine's cache."""
    policy.current().require(Act.HUB)
    return hub.is_id(reference) and bool(hub.cached(reference))


def offer(reference: str) -> hub.Offer:
    """What the hub says of a model, before anything of it is fetched."""
    policy.current().require(Act.HUB)
    return hub.offer(reference)


def fetch(reference: str, tell: Tell) -> Path:
    """The folder of a model of the hub, which is downloaded into this machine's cache."""
    policy.current().require(Act.HUB)
    tell(0.0, f"Downloading {reference}")
    return hub.locate(reference)
