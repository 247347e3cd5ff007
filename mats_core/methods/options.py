"""Options of a method, declared once; everything that shows them derives from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict


class Options(BaseModel):
    """Base of every method's options: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Section:
    """A heading that several options stand under on the page, and a sentence below it."""

    title: str
    sentence: str


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    step: float | None = None,
    source: str = "",
    label: str = "",
    section: Section | None = None,
    more: bool = False,
    switch: bool = False,
    checkpoint: tuple[str, ...] = (),
    base_statistics: str = "",
    vectors: str = "",
) -> Any:
    """One option, declared once: YAML schema, command line, widgets and reference derive from it.

    low, high        inclusive bounds
    above            an exclusive lower bound
    step             what a slider moves by
    source           where the default comes from
    label            what the page calls it; its name without underscores by default
    section          the heading that it stands under on the page
    more             whether the page keeps it behind "More settings"
    switch           whether 0 turns it off: the page draws a switch beside its slider
    checkpoint       the names that it takes; any other text is the path of a checkpoint to start
                     from, and such an option is the only one of its method
    base_statistics  the value with which a recipe must name the base's statistics
    vectors          the value that it has, unless the recipe sets it, where (IA)³ vectors are
                     merged; each vector's full block must then be measured
    """
    declared: dict[str, Any] = {
        "step": step, "source": source, "label": label, "more": more, "switch": switch,
        "section": asdict(section) if section else None, "checkpoint": list(checkpoint),
        "base_statistics": base_statistics, "vectors": vectors,
    }  # fmt: skip
    extra: JsonDict = {key: value for key, value in declared.items() if value}
    return Field(default, description=help, ge=low, le=high, gt=above, json_schema_extra=extra)
