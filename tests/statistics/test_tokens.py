"""Statistics of language models against brute force: each text alone, by plain autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mats_core import models, tasks
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.models.tokens import IGNORED
from mats_core.statistics import layers, of_task
from mats_core.statistics.collect import measure
from mats_core.statistics.of_task import measure_task
from tests import text_cases
from tests.conftest import loaded
from tests.layer_cases import close
from tests.text_cases import save, write_task

MAKE = {"gpt2": text_cases.gpt2, "llama": text_cases.llama, "t5": text_cases.t5}
STYLE = {"gpt2": "gpt2", "llama": "gpt2", "t5": "t5"}
ROWS = [
    {"text": "the film was", "answer": "good", "label": 0},
    {"text": "a very dull day", "answer": "bad : not good", "label": 1},
    {"text": "is it", "answer": "warm and sunny ?", "label": 1},
    {"text": "the plot was not very bright what how", "answer": "no", "label": 0},
    {"text": "one two three", "answer": "four", "label": 1},
]
LANGUAGE = {"kind": "language", "prompt": "{text} answer :", "target": " {answer}"}
CHOICES = {
    "kind": "choices", "prompt": "{text} answer :", "choices": [" yes", " no maybe not"],
    "label": "label",
}  # fmt: skip


@pytest.fixture(scope="module", params=MAKE)
def case(request, tmp_path_factory):
    """(name, directory, the model itself in float64)."""
    folder = tmp_path_factory.mktemp(request.param)
    model = MAKE[request.param](seed=3).eval()
    save(model, folder, STYLE[request.param])
    return request.param, folder, model.double()


def split_of(tmp_path, told, **change):
    return tasks.load(write_task(tmp_path, "t", ROWS * 2, ROWS, **{**told, **change})).test


def note(seen, name):
    def hook(module, inputs, output):
        output.retain_grad()
        seen[name] = inputs[0].detach(), output

    return hook


def brute_force(model, batches) -> dict[str, torch.Tensor]:
    """Definitions, literally; a linear layer's x and g by hooks of PyTorch's own."""
    layers = {
        name: module for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D")
    }  # fmt: skip
    sums: dict[str, torch.Tensor] = {}
    tokens: dict[str, int] = {}

    def add(name, value):
        sums[name] = sums.get(name, torch.zeros_like(value)) + value

    for inputs, targets in batches:
        seen: dict = {}
        hooks = [m.register_forward_hook(note(seen, n)) for n, m in layers.items()]
        model.zero_grad()
        scores = torch.log_softmax(model(**inputs).logits, -1)
        there = targets != IGNORED
        scores[there].gather(1, targets[there][:, None]).sum().backward()
        for hook in hooks:
            hook.remove()
        for name, (x, out) in seen.items():
            x = x.reshape(-1, x.shape[-1])
            g = out.grad.reshape(-1, out.shape[-1])
            tokens[name] = tokens.get(name, 0) + len(x)
            add(f"{name}.input_gram", x.T @ x)
            add(f"{name}.input_mean", x.sum(0))
            add(f"{name}.output_gradient_gram", g.T @ g)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                add(f"{name}.fisher", parameter.grad**2)
    return {
        name: value / (len(batches) if name.endswith("fisher") else tokens[name.rpartition(".")[0]])
        for name, value in sums.items()
    }


def alone(split, folder, answers=None):
    """Every example as a batch of its own: no padding but that of a decoder's width."""
    rows = models.encode(split, folder)
    for place in range(len(split)):
        picked = None if answers is None else answers[[place]]
        batch = rows.batch(np.array([place]), picked)
        keep = dict(batch.inputs)
        width = int(keep["decoder_attention_mask"].sum()) if "decoder_input_ids" in keep else None
        targets = batch.targets
        if width is not None:
            for name in ("decoder_input_ids", "decoder_attention_mask"):
                keep[name] = keep[name][:, :width]
            assert targets is not None
            targets = targets[:, :width]
        yield keep, targets


def numbers(statistics, name) -> torch.Tensor:
    found = statistics.read(name, statistics.shapes[name], dtype=torch.float64)
    assert found is not None
    return found


@pytest.mark.parametrize("told", [LANGUAGE, CHOICES], ids=["language", "choices"])
def test_everything_equals_brute_force(case, told, tmp_path):
    name, folder, model = case
    split = split_of(tmp_path, told)
    answers = None if told is LANGUAGE else split.labels
    expected = brute_force(model, list(alone(split, folder, answers)))
    batch = models.encode(split, folder).batch(np.arange(len(split)), answers)
    found = measure(model, [(batch.inputs, batch.targets)])
    read = {n: numbers(found, n) for n in found.shapes}
    missing = {n for n in expected if n not in read}
    assert not missing or (name != "llama" and all(n.startswith("lm_head") for n in missing))
    # The biases of relative positions are shared by a batch before anything else sees them.
    assert ("relative_attention_bias" in found.metadata.get("notes", "")) == (name == "t5")
    for key, value in read.items():
        if float(expected[key].norm()) > 1e-20:
            # RMSNorms compute their root in float32 whatever the model's dtype.
            close(value, expected[key], 1e-9 if name == "gpt2" else 1e-6)
    kinds = {n.rpartition(".")[2] for n in read}
    assert kinds == {"input_gram", "input_mean", "output_gradient_gram", "fisher"}
    norms = [n for n in read if "norm" in n or "ln_" in n]
    assert len(norms) >= 5
    table = {"gpt2": "transformer.wte", "llama": "model.embed_tokens", "t5": "shared"}[name]
    assert f"{table}.weight.fisher" in read


@pytest.mark.parametrize("labels", ["empirical", "true"])
@pytest.mark.parametrize("told", [LANGUAGE, CHOICES], ids=["language", "choices"])
def test_batches_and_padding_do_not_matter(case, told, labels, tmp_path):
    _, folder, _ = case
    task = tasks.load(write_task(tmp_path, "t", ROWS * 2, ROWS, **told))
    checkpoint = Checkpoint.open(folder)
    whole, single = (
        measure_task(checkpoint, task, batch_size=size, labels=labels, dtype=torch.float64)
        for size in (64, 1)
    )
    assert whole.metadata == single.metadata
    assert whole.metadata["labels"] == labels
    for name in whole.shapes:
        a, b = (numbers(s, name) for s in (whole, single))
        if float(a.norm()) > 1e-20:
            close(a, b, 1e-7)


def test_answers_are_drawn_by_the_models_own_probabilities(tmp_path):
    folder = save(text_cases.t5(seed=5), tmp_path / "m", "t5")
    row = {"text": "is it", "label": 0}
    told = {**CHOICES, "choices": ["yes", "no", "maybe"]}
    task = tasks.load(write_task(tmp_path, "t", [row] * 1300, [row], **told))
    model = loaded(Checkpoint.open(folder))
    chosen = task.train.first(1000)
    rows = models.encode(chosen, folder)
    drawn = of_task._drawn_answers(model, rows, chosen, np.arange(1000), seed=1)
    with torch.inference_mode():
        said = models.ask(lambda i: model(**i).logits, rows, chosen, np.array([0]))
    p = said.softmax(-1)[0].numpy()
    assert p.max() < 0.99
    assert np.bincount(drawn, minlength=3) / 1000 == pytest.approx(p, abs=4 * 0.5 / 1000**0.5)


def test_true_and_empirical_differ(case, tmp_path):
    _, folder, _ = case
    task = tasks.load(write_task(tmp_path, "t", ROWS * 2, ROWS, **LANGUAGE))
    true, empirical = (
        measure_task(Checkpoint.open(folder), task, labels=kind) for kind in ("true", "empirical")
    )
    name = next(n for n in true.shapes if n.endswith("output_gradient_gram"))
    a, b = (numbers(s, name) for s in (true, empirical))
    assert not torch.allclose(a, b, rtol=1e-2)


def test_a_vocabulary_gets_no_gram_of_its_gradients(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "GRAM_MOST", text_cases.VOCABULARY - 1)
    folder = save(text_cases.llama(), tmp_path / "m", "gpt2")
    task = tasks.load(write_task(tmp_path, "t", ROWS, ROWS, **LANGUAGE))
    found = measure_task(Checkpoint.open(folder), task)
    assert "lm_head.input_gram" in found.shapes
    assert "lm_head.output_gradient_gram" not in found.shapes
    assert "model.layers.0.mlp.up_proj.output_gradient_gram" in found.shapes


def test_masks_of_one_width_are_refused():
    model = text_cases.t5()
    ids = torch.ones(2, 3, dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": ids, "decoder_input_ids": ids,
              "decoder_attention_mask": ids}  # fmt: skip
    with pytest.raises(InputError, match="different widths"):
        measure(model, [(inputs, ids)])
