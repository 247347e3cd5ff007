"""The finished merges that the page Merge opens with: `drawn/results.json`, written here.

python -m sample_models.shipped
"""

from __future__ import annotations

from pathlib import Path

from mats_core.merging import ship_results
from mats_core.recipes import load_family

FAMILY = Path(__file__).parent / "drawn"
# Of what merges without training, at its defaults, sequential calibration keeps most.
METHODS = ("average", "sequential")


def write_results(folder: Path) -> None:
    """Merge, test on all validation examples, write, and say what came out."""
    for report in ship_results(load_family(folder), METHODS).reports:
        print(report)


if __name__ == "__main__":
    write_results(FAMILY)
