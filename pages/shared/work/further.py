"""What a merge goes on to be: routed, trained further, open to more experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mats_core.errors import validated
from mats_core.recipes import Recipe, Refine, Routed

WORDS = {"routed": Routed, "refine": Refine}


@dataclass(frozen=True)
class Further:
    """What a recipe asks for beyond its static merge.

    routed      branches beside the merge, one chosen by each input; None: none
    refine      how it is trained further; None: it is not
    keep_sums   whether its sums are written beside the model, so that experts can be added later
    """

    routed: Routed | None = None
    refine: Refine | None = None
    keep_sums: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> Further:
        """What a recipe asks for."""
        return cls(recipe.routed, recipe.refine, recipe.keep_sums)

    @classmethod
    def handed(cls, given: Mapping[str, Any]) -> Further:
        """Out of an address, by the recipe's keys; raises `InputError` for what is none."""
        parts = {
            name: None if given.get(name) is None else validated(name, model, given[name])
            for name, model in WORDS.items()
        }
        return cls(**parts, keep_sums=given.get("keep_sums") is True)

    @property
    def settings(self) -> dict[str, Any]:
        """As the keys of a recipe, those that are set."""
        said = {"routed": self.routed, "refine": self.refine, "keep_sums": self.keep_sums or None}
        return {name: value for name, value in said.items() if value is not None}

    @property
    def words(self) -> dict[str, str]:
        """What is set, in a few words each, by the recipe's key."""
        found = {"routed": routed_words(self.routed), "refine": refine_words(self.refine)}
        found["sums"] = "kept" if self.keep_sums else ""
        return {name: said for name, said in found.items() if said}


STATIC = Further()


def routed_words(routed: Routed | None) -> str:
    """`first pass, rank 8`: how a merge is routed, and what is not at its default."""
    if routed is None:
        return ""
    changed = routed.model_dump(exclude_defaults=True, exclude={"by", "rank"})
    more = (f"{name} {value}" for name, value in changed.items())
    rank = "full rank" if routed.rank == "full" else f"rank {routed.rank}"
    return ", ".join([routed.by.replace("_", " "), rank, *more])


def refine_words(refine: Refine | None) -> str:
    """`4 epochs`: how a merge is trained further, and what is not at its default."""
    if refine is None:
        return ""
    changed = refine.model_dump(exclude_defaults=True, exclude={"epochs"})
    more = (f"{name} {value:g}" for name, value in changed.items())
    return ", ".join([f"{refine.epochs} epoch{'' if refine.epochs == 1 else 's'}", *more])


def in_memory(recipe: Recipe) -> Recipe:
    """The recipe of a merge that is not written: nothing has its sums beside it."""
    return recipe.model_copy(update={"keep_sums": False})
