"""Where families may lie: the sample family's folder, and the roots that the app was started with:
those in the environment, else the folder it was started in.

A path that a person types is opened only if it lies under one of them, after every `..` and every
link in it is followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mats_core.errors import InputError

from .. import policy
from ..policy import Act

ROOTS = "MATS_FAMILIES"
FILE = "family.yaml"


def places() -> list[Path]:
    """The folders that families may lie in."""
    return [*named(), policy.SAMPLES]


def named() -> list[Path]:
    """The roots in the environment, else the working directory; none where paths are not opened."""
    if not policy.current().permits(Act.TYPED_PATHS):
        return []
    roots = [Path(root) for root in os.environ.get(ROOTS, "").split(os.pathsep) if root]
    return roots or [Path.cwd()]


def found(roots: Iterable[Path], opened: Iterable[Path] = ()) -> dict[str, Path]:
    """Every `family.yaml` in a root or one folder below it, and those that were opened: id → file.

    The id is the folder's name, which a link can name without telling where the folder lies.
    """
    files: list[Path] = []
    for root in roots:
        files += [root / FILE, *sorted(root.glob(f"*/{FILE}"))]
    families: dict[str, Path] = {}
    for file in (*files, *opened):
        if not file.is_file() or any(file.samefile(other) for other in families.values()):
            continue
        label = file.resolve().parent.name
        while label in families:
            label += " (another)"
        families[label] = file
    return families


def locate(text: str, roots: Sequence[Path]) -> Path:
    """The `family.yaml` that a person means: a folder or the file, absolute or under a root.

    Raises `InputError` that names the roots for anything that does not lie under one of them,
    whether or not something is there, and for anything where paths are not opened.
    """
    policy.current().require(Act.TYPED_PATHS)
    text = text.strip().strip("\"'")
    if not text:
        raise InputError("path", expected="a folder with a family.yaml", found="nothing typed")
    # A network path is refused before anything asks the network for it.
    if text.startswith(("\\\\", "//")) or "\0" in text or not text.isprintable():
        raise _refusal(text, roots)
    homes = [root.resolve() for root in roots]
    typed = [Path(text)] if Path(text).is_absolute() else [root / text for root in roots]
    led_out = False
    for candidate in typed:
        try:
            place = candidate.resolve()
            # Resolved once more: the file itself may be a link that leads out.
            file = (place if place.name == FILE else place / FILE).resolve()
        except (OSError, ValueError, RuntimeError):  # a loop of links, a name that is too long
            continue
        if not all(any(p.is_relative_to(home) for home in homes) for p in (place, file)):
            led_out = True
        elif _is_file(file):
            return file
    if led_out:
        raise _refusal(text, roots)
    raise InputError(
        f"family '{text[:200]}'",
        expected=f"a folder with a {FILE} of its own",
        found="none there",
        remedy="The README says what it holds; sample_models/drawn has one to copy.",
    )


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:
        return False


def _refusal(text: str, roots: Sequence[Path]) -> InputError:
    places = " or ".join(f"'{root.resolve()}'" for root in roots)
    shown = text if text.isprintable() and len(text) < 200 else "a path that cannot be shown"
    return InputError(
        f"family '{shown}'",
        expected=f"a folder under {places}",
        found="a path outside",
        remedy=f"To open another one, start the app with {ROOTS}=/path/to/your/families "
        "streamlit run app.py",
    )
