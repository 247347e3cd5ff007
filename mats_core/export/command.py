"""The recipe file of a merge, and the command lines that repeat it from a fresh clone."""

from __future__ import annotations

from dataclasses import asdict

from ..errors import one_line, shell
from ..recipes import dump_recipe
from .portable import STATISTICS, Finished, Measuring


def commands(merge: Finished, place: str) -> tuple[str, ...]:
    """The commands in order: measure the statistics where the method reads any, then merge.

    `place`: the family's folder as it is typed where the commands are called; the recipe
    (`recipe_yaml`) lies in it under the name `<stem>.yaml`.
    """
    folder = shell(place.rstrip("/") or "/")
    lines = []
    if merge.measuring is not None:
        lines.append(
            f"python -m mats_core measure --family {folder} --out {folder}/{STATISTICS}"
            f"{_measuring(merge.measuring)} --device cpu"
        )
    lines.append(f"python -m mats_core merge {folder}/{merge.stem}.yaml")
    return tuple(lines)


def _measuring(how: Measuring) -> str:
    """The options that differ from the defaults of `measure`."""
    usual = asdict(Measuring())
    said = asdict(how).items()
    return "".join(f" --{name} {shell(str(value))}" for name, value in said if value != usual[name])


def recipe_yaml(merge: Finished, place: str = "") -> str:
    """The portable recipe as a file; its first lines say where to put it and what to call.

    `place`: the family's folder, from the folder of MaTS Explorer; a placeholder by default.
    """
    place = place or f"path/to/{merge.recipe.folder.resolve().name}"
    lines = [
        f"{merge.title}: a merge of the family '{merge.family}'.",
        "Put this file into the family's folder: all its paths start there.  Then, from the",
        "folder of MaTS Explorer:",
        *(f"  {line}" for line in commands(merge, place)),
    ]
    return "".join(f"# {one_line(line)}\n" for line in lines) + dump_recipe(merge.portable)
