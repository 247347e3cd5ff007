"""How the settings of a recipe were chosen: what a search writes into it, and a report says."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Tuned(BaseModel):
    """How the settings of a recipe were chosen on validation data.

    trials       merges that were tried
    examples     validation examples of each task that each was asked at most; None: all
    objectives   what was looked for, the first one first
    settings     digest of the settings that were chosen: with others these words do not hold
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: int = Field(ge=1)
    examples: int | None = Field(default=None, ge=1)
    objectives: tuple[str, ...] = ("mean",)
    settings: str
