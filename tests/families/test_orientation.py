"""Conv1D and fused projections: the same mathematics whatever a file's layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from mats_core.analysis.convergence import assemble
from mats_core.analysis.predicted_loss import layer_costs
from mats_core.analysis.protection import layer_protection
from mats_core.analysis.spectra import layer_spectra
from mats_core.analysis.survey import survey
from mats_core.checkpoints.files import Checkpoint
from mats_core.merging.pipeline import merge, run
from mats_core.merging.reading import read_layer
from mats_core.methods.table import METHODS
from mats_core.recipes.events import Finished, LayerDone
from mats_core.recipes.plan import open_inputs, prepare, units
from mats_core.recipes.recipe import Recipe, parse_recipe
from mats_core.statistics.collect import measure
from mats_core.statistics.store import Statistics
from tests.architectures import ARCHITECTURES, config, inputs
from tests.method_cases import BARE

# (d_out, d_in) of a tiny GPT-2's matrices, two blocks of them.
MATRICES = {"attn.c_attn": (12, 4), "attn.c_proj": (4, 4), "mlp.c_fc": (6, 4), "mlp.c_proj": (4, 6)}
WEIGHTS = [f"h.{block}.{name}.weight" for block in range(2) for name in MATRICES]


def tensors(seed: int) -> dict[str, Tensor]:
    """A model in the orientation of nn.Linear."""
    generator = torch.Generator().manual_seed(seed)
    found = {"wte.weight": torch.randn(9, 4, generator=generator)}
    for block in range(2):
        for name, (d_out, d_in) in MATRICES.items():
            found[f"h.{block}.{name}.weight"] = torch.randn(d_out, d_in, generator=generator)
            found[f"h.{block}.{name}.bias"] = torch.randn(d_out, generator=generator)
    return found


def statistics(seed: int, own: dict[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, value in own.items():
        found[f"{name}.fisher"] = torch.rand(value.shape, generator=generator) + 0.1
        if name in WEIGHTS:
            module = name.removesuffix(".weight")
            for kind, size in (("output_gradient_gram", 0), ("input_gram", 1)):
                x = torch.randn(30, value.shape[size], generator=generator)
                found[f"{module}.{kind}"] = x.T @ x / 30
            found[f"{module}.input_mean"] = x.mean(0)
    return found


def turned(content: dict[str, Tensor]) -> dict[str, Tensor]:
    """The other layout: of weights and of their Fishers."""
    both = {*WEIGHTS, *(f"{name}.fisher" for name in WEIGHTS)}
    return {n: v.T.contiguous() if n in both else v for n, v in content.items()}


def write(folder: Path, *, conv1d: bool) -> Path:
    for place, seed in (("base", 0), ("e0", 1), ("e1", 2), ("e2", 3)):
        own = tensors(seed)
        own = own if seed == 0 else {n: tensors(0)[n] + 0.3 * v for n, v in own.items()}
        measured = statistics(10 + seed, own)
        if conv1d:
            own, measured = turned(own), turned(measured)
        (folder / place).mkdir(parents=True)
        save_file(own, folder / place / "model.safetensors")
        # Of the known kinds only GPT-2's relatives hold a Conv1D; the names alone do not say.
        kind = {"model_type": "gpt2" if conv1d else "gpt_bigcode"}
        (folder / place / "config.json").write_text(json.dumps(kind))
        Statistics.of(measured, {}).save(folder / f"{place}.stats.safetensors")
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("orientation")
    return write(folder / "conv1d", conv1d=True), write(folder / "linear", conv1d=False)


def recipe(folder: Path, method: str, **settings: object) -> Recipe:
    return parse_recipe(
        {
            "base": "base",
            "base_statistics": "base.stats.safetensors",
            "experts": [
                {"name": n, "model": n, "statistics": f"{n}.stats.safetensors"}
                for n in ("e0", "e1", "e2")[: METHODS[method].experts]
            ],
            "method": method,
            "device": "cpu",
            **settings,
        },
        folder,
    )


def merged(recipe: Recipe) -> dict[str, Tensor]:
    """The tensors of a merge that writes nothing."""
    *_, last = run(recipe)
    assert isinstance(last, Finished)
    return dict(last.tensors)


@pytest.mark.parametrize("method", BARE)
@pytest.mark.parametrize("on_disk", [True, False])
def test_every_method_gives_exactly_the_transpose(both, method, on_disk, tmp_path):
    found = []
    for folder in both:
        output = {"output": str(tmp_path / folder.name)} if on_disk else {}
        tensors = merged(recipe(folder, method, **output))
        found.append(
            load_file(tmp_path / folder.name / "model.safetensors") if on_disk else tensors
        )
    conv1d, linear = found
    assert conv1d.keys() == linear.keys()
    for name, value in turned(conv1d).items():
        assert torch.equal(value, linear[name]), name
    base = load_file(both[1] / "base" / "model.safetensors")
    assert not any(torch.equal(linear[name], base[name]) for name in WEIGHTS)


@pytest.mark.parametrize("folded", [True, False])
def test_folded_biases_and_iterates(both, folded):
    final, kept = [], []
    for folder in both:
        iterates = {}
        options = {"iterations": 3, "fold_bias": folded}
        for event in run(recipe(folder, "kfac", options=options), keep=(0,)):
            if isinstance(event, LayerDone) and event.iterates:
                iterates[event.layer.name] = event.iterates
        final.append(event.tensors)  # type: ignore[union-attr]
        kept.append(iterates)
    states = [
        assemble(tensors, iterates, 0, open_inputs(recipe(folder, "kfac")).family.transposed)
        for tensors, iterates, folder in zip(final, kept, both, strict=True)
    ]
    for conv1d, linear in (final, states):
        for name, value in turned(conv1d).items():
            assert torch.equal(value, linear[name]), name
    assert any(not torch.equal(states[1][name], final[1][name]) for name in WEIGHTS)


def test_looking_without_merging_sees_the_same(both):
    name = "h.1.attn.c_attn.weight"
    seen = []
    for folder in both:
        opened = open_inputs(recipe(folder, "kfac"))
        pairs = zip(opened.family.experts, opened.statistics, strict=True)
        own = {expert.name: found for expert, found in pairs if found}
        (surveyed,) = survey(opened.family, own, [name]).layers
        protected = layer_protection(opened.family, own, name, "e0")
        same = {n: opened.family.base.read(n) for n in opened.family.base.tensors}
        spectrum = layer_spectra(opened.family, own, name, "task matrix")["e1"]
        seen.append(
            (surveyed.shape, surveyed.norms, surveyed.losses, spectrum.values,
             torch.tensor(layer_costs(opened, same, name)),
             *(p.costs for p in protected.values()))
        )  # fmt: skip
    assert seen[0][0] == seen[1][0] == (12, 4)
    assert len(seen[0]) == len(seen[1]) > 6
    for one, other in zip(seen[0][1:], seen[1][1:], strict=True):
        assert torch.equal(one, other)


def test_statistics_of_a_conv1d_are_those_of_its_gradients():
    """Against autograd, example by example."""
    architecture = ARCHITECTURES["gpt2, classification"]
    torch.manual_seed(0)
    model = transformers.GPT2ForSequenceClassification(config(architecture, architecture.expert, 3))
    model.eval()
    given, labels = inputs("text"), torch.tensor([0, 2, 1])
    del given["attention_mask"]  # every token counts
    found = measure(model, [(given, labels)])
    name = "transformer.h.1.mlp.c_fc"
    weight = model.get_parameter(f"{name}.weight")
    assert weight.shape == (16, 64)
    square, seen, gradients = torch.zeros_like(weight), [], []
    module = model.get_submodule(name)
    hook = module.register_forward_hook(lambda _, args, out: (seen.append(args[0]), out)[1])
    for row in range(3):
        model.zero_grad()
        logits = model(input_ids=given["input_ids"][row : row + 1]).logits
        logits.log_softmax(-1)[0, labels[row]].backward()
        assert weight.grad is not None
        square += weight.grad**2 / 3
    hook.remove()
    x = torch.cat(seen).flatten(0, 1).detach()
    gradients = found.read(f"{name}.output_gradient_gram", (64, 64))
    torch.testing.assert_close(found.read(f"{name}.weight.fisher", (16, 64)), square)
    torch.testing.assert_close(found.read(f"{name}.input_gram", (16, 16)), x.T @ x / len(x))
    assert gradients is not None
    assert float(gradients.diagonal().sum()) > 0
    # The average diagonal Fisher of a bias is tokens² × its mean gradient's: only its place here.
    assert found.shapes[f"{name}.bias.fisher"] == (64,)


# Fused projections --------------------------------------------------------------------------------


def fused(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    layer = torch.nn.TransformerEncoderLayer(4, 2, 8)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return {f"layers.0.{name}": value.detach() for name, value in layer.state_dict().items()}


def test_a_fused_projection_is_one_matrix(tmp_path):
    """`in_proj_weight` of nn.MultiheadAttention: one Gram serves query, key and value."""
    generator = torch.Generator().manual_seed(5)
    name, bias = "layers.0.self_attn.in_proj_weight", "layers.0.self_attn.in_proj_bias"
    entries, grams, means = [], [], []
    save_file(fused(0), tmp_path / "base.safetensors")
    for m in range(2):
        save_file(fused(1 + m), tmp_path / f"e{m}.safetensors")
        x = torch.randn(20, 4, generator=generator)
        grams.append((x.T @ x / 20).double())
        means.append(x.mean(0))
        own = {"layers.0.self_attn.input_gram": x.T @ x / 20,
               "layers.0.self_attn.input_mean": x.mean(0)}  # fmt: skip
        Statistics.of(own, {}).save(tmp_path / f"e{m}.stats.safetensors")
        entries.append({"name": f"e{m}", "model": f"e{m}.safetensors",
                        "statistics": f"e{m}.stats.safetensors"})  # fmt: skip
    plain = {"off_diagonal": 1.0, "damping": 0.0, "fold_bias": False}
    options = {k: v for k, v in plain.items() if k in METHODS["regmean"].options.model_fields}
    content = {"base": "base.safetensors", "experts": entries, "method": "regmean",
               "options": options, "dtype": "float64", "device": "cpu"}  # fmt: skip
    made = parse_recipe(content, tmp_path)
    inputs_ = open_inputs(made)
    assert inputs_.family.roles[name] == "matrix"
    assert inputs_.family.roles[bias] == "vector"
    w = [fused(1 + m)[name].double() for m in range(2)]
    expected = (w[0] @ grams[0] + w[1] @ grams[1]) @ torch.linalg.inv(grams[0] + grams[1])
    torch.testing.assert_close(merged(made)[name].double(), expected, rtol=1e-4, atol=1e-5)
    if "fold_bias" in options:  # its bias joins it
        folded = parse_recipe({**content, "options": {**options, "fold_bias": True}}, tmp_path)
        job = prepare(folded)
        unit = next(unit for unit in units(job) if unit.name == name)
        assert unit.bias == bias
        assert read_layer(job, unit).base.shape == (12, 5)


def test_a_fused_projection_without_statistics(tmp_path):
    for place, seed in (("base", 0), ("e0", 1), ("e1", 2)):
        save_file(fused(seed), tmp_path / f"{place}.safetensors")
    content = {
        "base": "base.safetensors",
        "experts": [{"name": n, "model": f"{n}.safetensors"} for n in ("e0", "e1")],
        "method": "tsv_m", "output": "out",
    }  # fmt: skip
    report = merge(parse_recipe(content, tmp_path))
    assert report.coverage["merged"] == 4  # in_proj, out_proj, linear1, linear2
    assert Checkpoint.open(tmp_path / "out").tensors.keys() == fused(0).keys()
