"""The branches of a routed merge on disk: `routed/` beside the static merge of an output.

routed/branches.safetensors   every part by its name beside the weight (`mats_core.models.routing`)
routed/manifest.json          how branches are chosen, whose they are, which layers have them
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoints import Checkpoint, write_tensors
from ..errors import InputError, read_json
from ..models import parted
from ..names import part_name
from .sections import Routed

FOLDER, TENSORS, MANIFEST = "routed", "branches.safetensors", "manifest.json"
FORMAT = 1


def write_branches(
    folder: Path, branches: Mapping[str, Tensor], routed: Routed, experts: Sequence[str]
) -> None:
    """Write the branches of a merge into its output folder.

    branches   by their names beside the weights
    experts    names, in the order of the branches
    """
    beside, place = parted(branches)[1], folder / FOLDER
    place.mkdir(exist_ok=True)
    write_tensors(place / TENSORS, branches)
    manifest = {
        "format": FORMAT,
        **routed.model_dump(),
        "experts": list(experts),
        "bytes": sum(value.nbytes for value in branches.values()),
        "layers": {weight: list(parts) for weight, parts in beside.items()},
    }
    (place / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def read_branches(folder: str | Path) -> dict[str, Tensor]:
    """The branches that lie in an output folder, by their names beside the weights; none where it
    is a static merge.  Raises `InputError` for files that do not belong together.
    """
    file = Path(folder) / FOLDER / MANIFEST
    if not file.is_file():
        return {}
    manifest = read_json(file)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        version = manifest.get("format") if isinstance(manifest, dict) else "no JSON object"
        raise InputError(
            f"'{file}'",
            expected=f"a manifest of format {FORMAT}",
            found=str(version),
            remedy="Was it written by a newer version of this library?",
        )
    held, merged = Checkpoint.open(file.parent / TENSORS), Checkpoint.open(folder).tensors
    for weight, parts in _layers(file, manifest).items():
        missing = [name for part in parts if (name := part_name(weight, part)) not in held.tensors]
        if missing or weight not in merged:
            raise InputError(
                f"'{file}'",
                expected=f"its layers' parts in {TENSORS}, and their weights in the merge",
                found=f"no '{(missing or [weight])[0]}'",
                remedy="Copy or download the whole folder again.",
            )
    return {name: held.read(name) for name in held.tensors}


def _layers(file: Path, manifest: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    layers = manifest.get("layers")
    if not isinstance(layers, dict) or not all(isinstance(one, list) for one in layers.values()):
        raise InputError(f"'{file}'", expected="'layers' with their parts", found="something else")
    return layers
