"""The folder of a routed merge, as an earlier version wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mats_core as mats
from mats_core import models, tasks
from mats_core.checkpoints import Checkpoint
from mats_core.merging import evaluate_output
from mats_core.recipes import parse_recipe, read_branches
from tests.conftest import family_recipe


@pytest.mark.filterwarnings("ignore:the expert")
@pytest.mark.parametrize("kind", ["prototypes", "discriminant", "gate"])
def test_a_folder_with_routers_layer_by_layer_is_opened_as_it_was_written(
    tiny_family, tmp_path, kind
):
    """Its parts and its manifest are made as the version before the first pass made them: every
    layer names the `stage` of its router, which lies beside the first of them."""
    content = family_recipe(tiny_family, "average", evaluate=False)
    static = mats.merge(parse_recipe(content, tiny_family), progress=False)
    folder = static.save(tmp_path / "old")
    (without,) = (r.merged.answers for r in evaluate_output(folder, "test") if r.name == "e0")
    generator = torch.Generator().manual_seed(0)
    plain, count = load_file(folder / "model.safetensors"), 3
    parts: dict[str, torch.Tensor] = {}
    for stage, block in enumerate((0, 0, 1, 1)):
        place = f"vit.encoder.layer.{block}"
        names = [f"{place}.intermediate.dense.weight"] if stage % 2 else [
            f"{place}.attention.attention.{one}.weight" for one in ("query", "key", "value")
        ]  # fmt: skip
        width = plain[names[0]].shape[1]
        router = {
            "prototypes": {"prototypes": (count, width)},
            "discriminant": {"prototypes": (count, width), "offsets": (count,)},
            "gate": {"gate": (count, 2, width), "offsets": (count,)},
        }[kind]
        for part, shape in router.items():
            parts[f"{names[0]}@{part}"] = torch.randn(shape, generator=generator)
        for name in names:
            rows = plain[name].shape[0]
            parts[f"{name}@left"] = 0.1 * torch.randn(count, rows, 2, generator=generator)
            parts[f"{name}@right"] = torch.randn(count, 2, width, generator=generator)
            parts[f"{name}@bias"] = torch.randn(count, rows, generator=generator)
            parts[f"{name}@stage"] = torch.tensor(stage)
    layers: dict[str, list[str]] = {}
    for name in parts:
        weight, _, part = name.partition("@")
        layers.setdefault(weight, []).append(part)
    beside = folder / "routed"
    beside.mkdir()
    save_file(parts, beside / "branches.safetensors")
    manifest = {"format": 1, "by": kind, "rank": 2, "layers": layers, "examples": 64, "gate": 2,
                "top": 1, "experts": ["e0", "e1", "e2"], "bytes": 0}  # fmt: skip
    (beside / "manifest.json").write_text(json.dumps(manifest))
    branches = read_branches(folder)
    assert set(branches) == set(parts)
    (results,) = (r.merged.answers for r in evaluate_output(folder, "test") if r.name == "e0")
    expert = tiny_family / "e0"
    own = models.tensors_of(Checkpoint.open(expert))
    state = {**own, **{n: v for n, v in plain.items() if not n.startswith("classifier")}}
    split = tasks.load("t0.npz", root=tiny_family).test
    answers = _asked_by_hand(expert, state, parts, split.inputs)
    right = answers.argmax(1).numpy() == split.labels
    assert results == "".join("1" if one else "0" for one in right)
    assert results != without


def _asked_by_hand(
    directory: Path, state: dict[str, torch.Tensor], parts: dict[str, torch.Tensor], images
) -> torch.Tensor:
    """The answers of a model whose layers add the branch that their stage's scores choose."""
    model, names = models.build(directory, state), models.parameter_names(directory, state)
    scores: dict[int, torch.Tensor] = {}

    def hook(weight: str):
        first = next(
            n for n in parts if n.endswith("@stage") and parts[n] == parts[f"{weight}@stage"]
        )
        lead, stage = first.removesuffix("@stage"), int(parts[first])

        def add(module, args, output):
            x = args[0]
            offsets = parts.get(f"{lead}@offsets", 0.0)
            if f"{lead}@gate" in parts:
                said = torch.einsum("nsd,tkd->nstk", x, parts[f"{lead}@gate"]).square().sum(-1)
                found = (said / x.square().sum(-1, keepdim=True)).log().mean(1) - offsets
            else:
                found = x.mean(1) @ parts[f"{lead}@prototypes"].T - offsets
                if f"{lead}@offsets" not in parts:
                    norms = parts[f"{lead}@prototypes"].norm(dim=1) * x.mean(1).norm(dim=1)[:, None]
                    found = found / norms
            scores[stage] = found
            summed = f"{lead}@offsets" in parts
            chosen = (
                torch.stack([scores[s] for s in range(stage + 1)]).sum(0) if summed else found
            ).argmax(1)
            left, right = parts[f"{weight}@left"][chosen], parts[f"{weight}@right"][chosen]
            return output + x @ right.mT @ left.mT + parts[f"{weight}@bias"][chosen][:, None]

        return add

    back = {source: name for name, source in names.items()}
    for name in [n.removesuffix("@stage") for n in parts if n.endswith("@stage")]:
        model.get_submodule(back[name].removesuffix(".weight")).register_forward_hook(hook(name))
    with torch.inference_mode():
        return model(pixel_values=models.pixel_values(images, directory)).logits
