"""Whether a merge that was taken is the right one: in plain numpy, from the files' bytes.

Nothing of the library is used but what it says of itself: the merged tensors, and the report, which
names the method of every layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
HUGE = 1e30  # numbers above leave float32 on the way: whether they do is not compared
Arrays = Mapping[str, np.ndarray]


def arrays(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a file of safetensors whose numbers numpy knows, as float64."""
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    found = {}
    for name, told in header.items():
        if name != "__metadata__" and told["dtype"] in DTYPES:
            low, high = told["data_offsets"]
            part = np.frombuffer(raw[8 + length :][low:high], DTYPES[told["dtype"]])
            found[name] = part.reshape(told["shape"]).astype(np.float64)
    return found


def average(name: str, base: Arrays, experts: Sequence[Arrays]) -> np.ndarray:
    """The mean of a tensor over the experts."""
    return np.mean([one[name] for one in experts], axis=0)


def arithmetic(name: str, base: Arrays, experts: Sequence[Arrays]) -> np.ndarray:
    """The base and 0.8 of the sum of what each of two experts has changed."""
    return base[name] + 0.8 * sum(one[name] - base[name] for one in experts)


def regmean(
    name: str, base: Arrays, experts: Sequence[Arrays], grams: Sequence[Arrays]
) -> tuple[np.ndarray, float]:
    """`(Σ W_m A_m)(Σ A_m)⁻¹` with a hundredth of each Gram's mean eigenvalue on its diagonal; and
    the condition of the sum."""
    key = name.removesuffix("weight") + "input_gram"
    # What rounding leaves of symmetry may be taken either way.
    odd = max(float(np.abs(one[key] - one[key].T).max() / np.abs(one[key]).max()) for one in grams)
    ready = [
        one[key] + 0.01 * np.trace(one[key]) / len(one[key]) * np.eye(len(one[key]))
        for one in grams
    ]
    left = np.sum(ready, axis=0)
    each = [one[name] @ gram for one, gram in zip(experts, ready, strict=True)]
    right = np.sum(each, axis=0)
    return np.linalg.solve(left.T, right.T).T, float(np.linalg.cond(left)) * (1 + odd / 1e-6)


def require(
    merged: Mapping[str, Any], layers: Sequence[Any], base: Path, experts: Sequence[Path],
    method: str, statistics: Sequence[Path] = (),
) -> None:  # fmt: skip
    """Assert that every layer that was merged by a method, as its report says, is what numpy makes
    of the files."""
    own, theirs = arrays(base), [arrays(one) for one in experts]
    grams = [arrays(one) for one in statistics]
    for layer in layers:
        known = all(layer.name in one for one in (own, *theirs))
        if layer.method != method or not known or layer.status.startswith("singular"):
            continue
        told = [one[layer.name] for one in (own, *theirs)]
        largest = max(float(np.abs(one).max(initial=0)) for one in told)
        if largest > HUGE:
            continue
        condition = 1.0
        if method == "regmean":
            wanted, condition = regmean(layer.name, own, theirs, grams)
        else:
            wanted = {"average": average, "task_arithmetic": arithmetic}[method](
                layer.name, own, theirs
            )
        if condition > 1e5:
            continue
        found = merged[layer.name].double().numpy()
        far = float(np.abs(found - wanted).max(initial=0))
        assert far <= 1e-5 * (largest + 1e-6) * max(1.0, condition), (
            f"{layer.name} is off by {far:g}"
        )
