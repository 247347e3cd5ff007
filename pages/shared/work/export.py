"""A run's model on disk and as a zip, and a recipe read back.  No Streamlit here."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mats_core.api import judge
from mats_core.errors import InputError
from mats_core.export import Finished, Reopened, recipe_yaml, reopening
from mats_core.merging import FINAL, Evaluation, FamilyFile, Recipe, planned, run_plan

from . import again
from .following import told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run

OUTPUTS = "MATS_OUTPUTS"
MOST_BYTES = 200_000_000  # of a download: the server holds it in memory twice
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # in a zip, so that the same files give the same bytes


@dataclass(frozen=True)
class Written:
    """A model directory that is complete."""

    folder: Path
    coverage: dict[str, int]
    files: int
    size: int


def finished(run: Run) -> Finished:
    """What leaves the house of a run: its final figure where test examples were asked."""
    recipe, report = run.recipe, run.final_report
    if report is None:
        return Finished(run.id, run.name, run.family, recipe, run.report)
    recipe = recipe.model_copy(update={"evaluate": FINAL})
    return Finished(run.id, run.name, run.family, recipe, report)


def outputs_folder() -> Path:
    """`MATS_OUTPUTS`, else `outputs` where the app was started."""
    return Path(os.environ.get(OUTPUTS) or "outputs")


def written(run: Run) -> Written | None:
    """The model directory of a run, where there is one.

    Raises `InputError` where something else stands in its place.
    """
    folder = outputs_folder() / run.id
    if not folder.exists():
        return None
    try:
        report = json.loads((folder / "report.json").read_text("utf-8"))
        coverage = {str(kind): int(count) for kind, count in report["coverage"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise InputError(
            f"'{folder}'",
            expected="nothing, or the model of this run",
            found="something else",
            remedy=f"Move it away, or name another folder in {OUTPUTS} before the start.",
        ) from None
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return Written(folder, coverage, len(sizes), sum(sizes))


def write(made: Run, ready: Callable[[], Prepared], tell: Tell) -> Path:
    """Merge once more, into the outputs folder; the folder appears whole or not at all."""
    folder = (outputs_folder() / made.id).resolve()
    recipe, _ = again.opened(made, ready())
    # Opened by the merge itself: what is kept for good is read from the files as they are now.
    plan = planned(_to_write(made, recipe).model_copy(update={"output": str(folder)}))
    judge(plan)
    told(run_plan(plan), tell)
    return folder


def _to_write(made: Run, recipe: Recipe) -> Recipe:
    """The run's recipe for the checkpoints that it was made from, tested on all examples."""
    prints, evaluate = made.report.fingerprints, finished(made).recipe.evaluate
    if isinstance(evaluate, Evaluation):
        evaluate = evaluate.model_copy(update={"precision": None})
    entries = (e.model_copy(update={"fingerprint": prints.get(e.name)}) for e in recipe.experts)
    return recipe.model_copy(
        update={
            "experts": tuple(entries),
            "base_fingerprint": prints.get("base"),
            "evaluate": evaluate,
            "keep_sums": made.recipe.keep_sums,
        }
    )


def zipped(run: Run, folder: Path, place: str) -> BinaryIO:
    """The directory as an open zip file that is gone from the disk once it is closed.

    Its recipe is the portable one: the directory's own names the folders of this machine.
    """
    merge = finished(run)
    handle, name = tempfile.mkstemp(prefix="mats-", suffix=".zip")
    try:
        # Weights do not shrink: stored as they are, which is quick.
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w") as archive:
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                inner = file.relative_to(folder)
                info = zipfile.ZipInfo(f"{merge.stem}/{inner.as_posix()}", LONG_AGO)
                info.external_attr = 0o644 << 16
                info.file_size = file.stat().st_size
                if inner.as_posix() == "recipe.yaml":
                    archive.writestr(info, recipe_yaml(merge, place))
                    continue
                with file.open("rb") as source, archive.open(info, "w") as target:
                    while block := source.read(1 << 20):
                        target.write(block)
        return open(name, "rb")
    finally:
        os.unlink(name)


def read_back(data: bytes, families: Sequence[FamilyFile], tell: Tell) -> Reopened:
    """The recipe in an uploaded file, over a family of the app."""
    return told(reopening(data, families), tell)
