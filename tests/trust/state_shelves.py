"""The shelf of what other programs and earlier commands leave beside models: the states of
optimisers, journals of searches and of trials, sums whose digests were made again, and what is
remembered."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file

from mats_core.analysis import Space, searching
from mats_core.checkpoints import contents, partial_of
from mats_core.merging import merge, run
from mats_core.merging.journal import BEFORE
from mats_core.recipes import load_recipe, open_inputs, parse_recipe, sums
from mats_core.statistics import optimizer_statistics
from mats_core.system import drain, speeds

from . import damage
from .model_shelves import base_of_images
from .shelves import Door, Kind, merge_of

TRIALS = 2
TESTED = {
    "base": "base",
    "experts": [{"name": f"e{m}", "model": f"e{m}", "task": f"t{m}.npz"} for m in range(2)],
    "method": "task_arithmetic",
    "device": "cpu",
}


def states(folder: Path) -> Mapping[str, Kind]:
    """States of AdamW in both formats, a journal of a search that is done, sums beside a merge,
    contents and rates that are remembered."""
    base_of_images(folder)
    return {
        **_optimisers(folder),
        "journal of a search": Kind("search.journal", damage.JSONL, _search(folder), 0.7),
        "journal of trials": Kind(f"half/{BEFORE}", damage.JSONL, _tried(folder), 0.7),
        **_sums(folder),
        "contents remembered": Kind("contents.json", damage.JSON, _contents(folder)),
        "rates remembered": Kind("rates.json", damage.JSON, _rates(folder), 0.5),
    }


def _optimisers(folder: Path) -> Mapping[str, Kind]:
    """What AdamW keeps of a step of an expert, by number, by name and as safetensors."""
    own = load_file(folder / "e0" / "model.safetensors")
    moments = {name: torch.full_like(value, 0.5) for name, value in own.items()}
    for how in ("numbers", "names"):
        keys = list(range(len(own)) if how == "numbers" else own)
        entries = zip(keys, own, strict=True)
        state = {
            key: {"step": torch.tensor(3.0), "exp_avg": own[name], "exp_avg_sq": moments[name]}
            for key, name in entries
        }
        groups = [{"lr": 1e-3, "betas": (0.9, 0.999), "params": keys, "param_names": list(own)}]
        torch.save({"state": state, "param_groups": groups}, folder / f"{how}.pt")
    named = {f"{name}.exp_avg_sq": value for name, value in moments.items()}
    save_file(named, folder / "moments.safetensors", {"step": "3", "beta2": "0.999"})

    def reading(file: str) -> Door:
        def door(where: Path) -> None:
            found = optimizer_statistics(where / "e0", where / file)
            for name in found.shapes:
                assert found.stored(name).isfinite().all()

        return door

    return {
        "state of AdamW": Kind("numbers.pt", damage.STATE, reading("numbers.pt"), 2),
        "state of AdamW by names": Kind("names.pt", damage.STATE, reading("names.pt")),
        "state of AdamW: safetensors": Kind(
            "moments.safetensors", damage.tensors(), reading("moments.safetensors")
        ),
    }


def _search(folder: Path) -> Door:
    """A search that is done, gone on with: what its journal lacks is merged and asked again."""
    recipe = parse_recipe({**TESTED, "seed": 0}, folder)
    inputs = open_inputs(recipe)

    def door(where: Path) -> None:
        found = drain(searching(
            recipe, Space(options=("scaling",)), trials=TRIALS, examples=6, resume=True,
            journal=where / "search.journal", inputs=inputs,
        ))  # fmt: skip
        assert len(found.trials) >= TRIALS
        json.dumps([vars(trial) | {"values": dict(trial.values)} for trial in found.trials])
        assert 0 <= found.front[0].low <= found.front[0].high

    door(folder)
    return door


def _tried(folder: Path) -> Door:
    """A merge after a search that was stopped as its trials were done."""
    told = {"search": {"scaling": [0.2, 0.5]}, "evaluate": {"examples": 6}, "output": "out"}
    recipe = parse_recipe({**TESTED, **told}, folder)
    merge(recipe)
    whole = (folder / "out" / "model.safetensors").read_bytes()
    shutil.rmtree(folder / "out")
    events = run(recipe, resume=True)
    while type(next(events)).__name__ != "LayerDone":
        pass
    events.close()
    partial_of(folder / "out").rename(folder / "half")

    def door(where: Path) -> None:
        shutil.rmtree(where / "out", ignore_errors=True)
        shutil.copytree(where / "half", partial_of(where / "out"), dirs_exist_ok=True)
        drain(run(recipe, resume=True))
        same = (where / "out" / "model.safetensors").read_bytes() == whole
        assert same, "another model than without a stop"

    return door


def _sums(folder: Path) -> Mapping[str, Kind]:
    """Sums beside a merge of one expert, with all digests made again."""
    told = {"base": "base", "method": "average", "device": "cpu", "evaluate": False}
    first, more = ({"name": f"e{m}", "model": f"e{m}"} for m in range(2))
    (folder / "more.yaml").write_text(json.dumps({**told, "experts": [more], "adds_to": "kept"}))
    merge(parse_recipe({**told, "experts": [first], "output": "kept", "keep_sums": True}, folder))
    manifest = folder / "kept" / sums.FOLDER / sums.MANIFEST
    layer = json.loads(manifest.read_text())["layers"][0]["file"]

    def adding(where: Path) -> None:
        _digest_again(where / "kept" / sums.FOLDER)
        made = merge_of(load_recipe(where / "more.yaml"))
        assert all(value.isfinite().all() for value in made.tensors.values())

    place = f"kept/{sums.FOLDER}"
    return {
        "sums: manifest, signed again": Kind(f"{place}/{sums.MANIFEST}", damage.JSON, adding),
        "sums: numbers, signed again": Kind(f"{place}/{layer}", damage.tensors(), adding),
    }


def _digest_again(folder: Path) -> None:
    """Let the digests of a manifest be those of what is there, as far as it can be read."""
    manifest = folder / sums.MANIFEST
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        content = json.loads(manifest.read_text("utf-8"))
        for layer in content["layers"]:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                layer["digest"] = sums.digest_of_file(folder / layer["file"])
        bare = {key: value for key, value in content.items() if key != "digest"}
        manifest.write_text(json.dumps({**bare, "digest": sums._digest_of(bare)}))


def _contents(folder: Path) -> Door:
    """What is known of a file's tensors from an earlier process, where it is large."""
    file = folder / "e0" / "model.safetensors"
    stamp = contents._stamp(file)
    tensors = {key: ["0" * 64, True] for key in load_file(file)}
    told = {"format": contents.FORMAT, "stamp": stamp, "tensors": tensors}
    (folder / "contents.json").write_text(json.dumps(told))

    def door(where: Path) -> None:
        with (
            patch.object(contents, "WORTH", 0),
            patch.object(contents, "_place", lambda _: where / "contents.json"),
        ):
            found = contents._kept(file, stamp)
        for one in found.tensors.values():
            assert isinstance(one.digest, str)
            assert isinstance(one.finite, bool)

    return door


def _rates(folder: Path) -> Door:
    """The speeds of this machine, as they were measured before."""
    file = folder / "rates.json"
    speeds._write(file, speeds.Rates("cpu", 1e9, 1e8, 1e9, 1e-5))
    assert speeds._read(file) is not None

    def door(where: Path) -> None:
        found = speeds._read(where / "rates.json")
        assert found is None or found.seconds(speeds.Work(products=1.0)) > 0

    return door
