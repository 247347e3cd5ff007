"""Intermediate tasks in the worker: targets, donors, and the one test of what was chosen."""

from __future__ import annotations

from dataclasses import dataclass

from mats_core.analysis import (
    DONATION_EXAMPLES,
    Donation,
    DonationDone,
    Donations,
    donating,
    finally_asked,
)
from mats_core.evaluation import TaskResult
from mats_core.recipes import Recipe
from mats_core.system import part

from .following import gathering, told
from .jobs import Tell


@dataclass(frozen=True)
class DonationRequest:
    """Which targets and donors were asked for, by which recipe over all experts."""

    family: str
    recipe: Recipe
    targets: tuple[str, ...]
    donors: tuple[str, ...]


def measure_donations(request: DonationRequest, tell: Tell) -> Donations:
    """All pairs at every weight; those that are done are told on the way."""
    events = donating(
        request.recipe, targets=request.targets, donors=request.donors, examples=DONATION_EXAMPLES
    )
    known = gathering(DonationDone, lambda event: event.donation)

    def so_far(event: object) -> Donations:
        return Donations(request.recipe, known(event), DONATION_EXAMPLES)  # type: ignore[arg-type]

    return told(part(events, said="Intermediate tasks: {}"), tell, so_far)


def ask_finally(found: Donations, donation: Donation, tell: Tell) -> TaskResult:
    """What the chosen merge and the expert alone reach on the target's test examples."""
    return told(finally_asked(found.recipe_for(donation), donation.target), tell)
