"""A run's model on disk and as a zip, and a recipe read back.  No Streamlit here."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mats_core.api import judge
from mats_core.errors import InputError, parsing, read_json
from mats_core.export import Finished, Reopened, recipe_yaml, reopening
from mats_core.merging import lora_bytes, output_specs, planned, run_plan
from mats_core.recipes import FINAL, Evaluation, FamilyFile, LoraOutput, Plan, Recipe, Report
from mats_core.system import temporary_file

from .. import policy
from ..policy import Act
from . import again
from .following import told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run

OUTPUTS = "MATS_OUTPUTS"
MOST_BYTES = 200_000_000  # of a download: the server holds it in memory twice
RANKS, ENERGIES = (4, 8, 16, 32, 64), (0.9, 0.99, 0.999)  # of a LoRA, as they are offered
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # in a zip, so that the same files give the same bytes


@dataclass(frozen=True)
class Written:
    """A model directory that is complete."""

    folder: Path
    coverage: dict[str, int]
    files: int
    size: int
    sentence: str = ""


@dataclass(frozen=True)
class LoraSize:
    """How large one LoRA is: bytes of the adapter at most, and of the whole checkpoint."""

    most: int
    checkpoint: int


def offered() -> dict[str, LoraOutput | None]:
    """The forms that a model can be written in, by what they are called: the checkpoint first."""
    by_rank = {f"LoRA of rank {rank}": LoraOutput(rank=rank) for rank in RANKS}
    by_energy = {
        f"LoRA with {100 * energy:g} % of every update": LoraOutput(energy=energy)
        for energy in ENERGIES
    }
    return {"Whole checkpoint": None, **by_rank, **by_energy}


def lora_size(run: Run, prepared: Prepared, lora: LoraOutput) -> LoraSize:
    """The size of a run as one LoRA, from shapes alone.  Raises `InputError` where it cannot be
    one, or where the family's files are not the run's any more."""
    recipe, inputs = again.opened(run, prepared)
    plan = planned(recipe.model_copy(update={"lora": lora}), inputs)
    own = inputs.family.base.tensors
    return LoraSize(lora_bytes(plan), sum(own[name].nbytes for name in output_specs(plan)))


def place_of(run: Run, lora: LoraOutput | None = None) -> Path:
    """The folder that a run is written into, one for each form."""
    said = "".join(f"-{key}-{value:g}" for key, value in _said(lora).items())
    return outputs_folder() / f"{run.id}{'-lora' if lora else ''}{said}"


def _said(lora: LoraOutput | None) -> dict[str, float]:
    return lora.model_dump(exclude_defaults=True) if lora else {}


def finished(run: Run, lora: LoraOutput | None = None) -> Finished:
    """What leaves the house of a run: its final figure where test examples were asked; as one LoRA,
    which is another model, none."""
    recipe, report = run.recipe, run.final_report
    if lora is not None:
        recipe = recipe.model_copy(update={"lora": lora, "keep_sums": False})
        return Finished(run.id, run.name, run.family, recipe, run.report)
    if report is None:
        return Finished(run.id, run.name, run.family, recipe, run.report)
    recipe = recipe.model_copy(update={"evaluate": FINAL})
    return Finished(run.id, run.name, run.family, recipe, report)


def outputs_folder() -> Path:
    """`MATS_OUTPUTS`, else `outputs` where the app was started; of a session on a shared server, in
    its own folder."""
    if (visitor := policy.present()) is not None:
        return visitor.folder / "outputs"
    policy.current().require(Act.OUTPUTS)
    return Path(os.environ.get(OUTPUTS) or "outputs")


def written(run: Run, lora: LoraOutput | None = None) -> Written | None:
    """The model directory of a run in a form, where there is one.

    Raises `InputError` where something else stands in its place.
    """
    folder = place_of(run, lora)
    if not folder.exists():
        return None
    try:
        with parsing(f"'{folder}'", "the model of this run"):
            content = read_json(folder / "report.json")
            coverage = {str(kind): int(count) for kind, count in content["coverage"].items()}
            report = Report.from_dict(content)
    except InputError:
        raise InputError(
            f"'{folder}'",
            expected="nothing, or the model of this run",
            found="something else",
            remedy=f"Move it away, or name another folder in {OUTPUTS} before the start.",
        ) from None
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return Written(folder, coverage, len(sizes), sum(sizes), _as_lora(report))


def _as_lora(report: Report) -> str:
    """What a written LoRA is and keeps, in a sentence; "" of a whole checkpoint."""
    if not report.lora:
        return ""
    said, kept = report.as_lora, report.normalised_accuracy
    if kept is not None:
        said += f"; it keeps {100 * kept:.1f} % of the experts' accuracy ({report.split})"
    return f"{said[0].upper()}{said[1:]}."


def write(
    made: Run, ready: Callable[[], Prepared], tell: Tell, lora: LoraOutput | None = None
) -> Path:
    """Merge once more, into the outputs folder; the folder appears whole or not at all."""
    folder = place_of(made, lora).resolve()
    recipe, _ = again.opened(made, ready())
    # Opened by the merge itself: what is kept for good is read from the files as they are now.
    plan = planned(_to_write(made, recipe, lora).model_copy(update={"output": str(folder)}))
    _require_room(plan)
    judge(plan)
    told(run_plan(plan), tell)
    return folder


def most_bytes() -> int:
    """Of a model that is downloaded."""
    return int(min(MOST_BYTES, policy.current().download))


def _require_room(plan: Plan) -> None:
    """Raise `InputError` for a model that is larger than what one session may keep or download."""
    if (visitor := policy.present()) is None:
        return
    own = plan.inputs.family.base.tensors
    nbytes = sum(own[name].nbytes for name in output_specs(plan))
    policy.current().require_size("the model", nbytes, policy.current().download)
    visitor.require_room(nbytes)


def _to_write(made: Run, recipe: Recipe, lora: LoraOutput | None = None) -> Recipe:
    """The run's recipe for the checkpoints that it was made from, tested on all examples."""
    prints, evaluate = made.report.fingerprints, finished(made, lora).recipe.evaluate
    if isinstance(evaluate, Evaluation):
        evaluate = evaluate.model_copy(update={"precision": None})
    entries = (e.model_copy(update={"fingerprint": prints.get(e.name)}) for e in recipe.experts)
    return recipe.model_copy(
        update={
            "experts": tuple(entries),
            "base_fingerprint": prints.get("base"),
            "evaluate": evaluate,
            "keep_sums": made.recipe.keep_sums and lora is None,
            "lora": lora,
        }
    )


def zipped(run: Run, folder: Path, place: str, lora: LoraOutput | None = None) -> BinaryIO:
    """The directory as an open zip file that is gone from the disk once it is closed.

    Its recipe is the portable one: the directory's own names the folders of this machine.
    """
    held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    policy.current().require_size("the model", held, most_bytes())
    merge = finished(run, lora)
    # Weights do not shrink: stored as they are, which is quick.
    with temporary_file("download") as draft:
        with zipfile.ZipFile(draft, "w") as archive:
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
        return draft.open("rb")


def read_back(data: bytes, families: Sequence[FamilyFile], tell: Tell) -> Reopened:
    """The recipe in an uploaded file, over a family of the app."""
    policy.current().require_size("the recipe", len(data), policy.current().recipe)
    return told(reopening(data, families), tell)
