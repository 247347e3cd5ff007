"""Options of a method, declared once; everything that shows them derives from it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict


class Options(BaseModel):
    """Base of every method's options: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    step: float | None = None,
    source: str = "",
) -> Any:
    """One option, declared once: YAML schema, command line, widgets and reference derive from it.

    `low`/`high` are inclusive bounds, `above` an exclusive lower one; `step` is what a slider
    moves by; `source` says where the default comes from.
    """
    extra: JsonDict = {key: value for key, value in (("step", step), ("source", source)) if value}
    return Field(default, description=help, ge=low, le=high, gt=above, json_schema_extra=extra)
