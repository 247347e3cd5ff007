"""The tabs on Compare about merges that are made for it: boards, ladders, sizes and searches."""

from __future__ import annotations

from functools import partial

from mats_core.figures import Look
from mats_core.recipes import FamilyFile

from ..frame import Slot, tabs
from ..work import Job, Prepared, Run
from . import intermediate, ladder, leaderboard, search, sizes, sweep

SLOTS = (
    Slot.SWEEPING,
    Slot.SEARCHING,
    Slot.DONATING,
    Slot.DONATED,
    Slot.CLIMBING,
    Slot.SIZING,
    Slot.RANKING,
)


def collect() -> None:
    """Say how each of them ended, once."""
    for part in (sweep, search, intermediate, ladder, sizes, leaderboard):
        part.collect()


def views(
    collection: FamilyFile,
    preparing: Job,
    prepared: Prepared | None,
    kept: list[Run],
    looks: dict[str, Look],
) -> list[tabs.Tab]:
    """A tab for each; `kept` are the family's runs, whose settings a search can begin with."""
    board = partial(leaderboard.section, collection, preparing, prepared)
    climbed = partial(ladder.section, collection, prepared, looks)
    sized = partial(sizes.section, collection, prepared, looks)
    donors = partial(intermediate.section, collection, prepared, looks)
    grid = partial(sweep.section, collection, kept, prepared)
    beyond = partial(search.section, collection, kept, prepared)
    return [
        tabs.Tab(leaderboard.VIEW, board, "What each method keeps"),
        tabs.Tab(ladder.VIEW, climbed, "What each step adds"),
        tabs.Tab(sizes.VIEW, sized, "What accuracy costs in size"),
        tabs.Tab(intermediate.VIEW, donors, "What a donor does for a target"),
        tabs.Tab("Sweep two settings", grid, "Every pair of two settings"),
        tabs.Tab(search.VIEW, beyond, "Many settings at once"),
    ]
