"""A, B, F and the full blocks against brute force: one example at a time, by plain autograd."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.models.modules import parameter_names, tensors_of
from mats_core.statistics import gram
from mats_core.statistics.collect import BatchDone, measure
from mats_core.statistics.of_task import measure_task, measuring_task
from mats_core.statistics.settings import MeasureSettings
from mats_core.system.stream import drain
from mats_core.tasks.loading import load as load_task
from tests.conftest import class_names, loaded, vit
from tests.layer_cases import close

LENGTHS = (7, 3, 5, 1, 6, 2)


def image_model() -> Any:
    return vit(3, class_names(3), seed=1).double().eval()


def image_batch(count: int = 6) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(count, 1, 12, 12, dtype=torch.float64, generator=generator)
    return {"pixel_values": pixels}, torch.arange(count) % 3


def text_model(seed: int = 3) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=20, max_position_embeddings=12, num_labels=3,  # type: ignore[call-arg]
    )  # fmt: skip
    return BertForSequenceClassification(config).double().eval()


def text_batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    longest = max(LENGTHS)
    ids = torch.randint(1, 30, (len(LENGTHS), longest), generator=generator)
    mask = torch.tensor([[1] * n + [0] * (longest - n) for n in LENGTHS])
    # Whatever stands at the padding must not matter.
    return {"input_ids": ids, "attention_mask": mask}, torch.arange(len(LENGTHS)) % 3


def brute_force(model: nn.Module, batch, unpadded: bool) -> dict[str, torch.Tensor]:
    """The definitions, literally: forward and backward of each example by itself."""
    inputs, labels = batch
    totals: dict[str, torch.Tensor] = {}
    tokens: dict[str, int] = {}
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    hooks = []

    def note(name):
        def hook(module, arguments, output):
            output.retain_grad()
            seen.setdefault(name, []).append((arguments[0].detach(), output))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            hooks.append(module.register_forward_hook(note(name)))
    for index in range(len(labels)):
        one = {key: tensor[index : index + 1] for key, tensor in inputs.items()}
        if unpadded:
            one = {key: tensor[:, : LENGTHS[index]] for key, tensor in one.items()}
        seen.clear()
        model.zero_grad()
        output = model(**one)
        logits = output.logits if hasattr(output, "logits") else output
        torch.log_softmax(logits, -1)[0, labels[index]].backward()
        parts: dict[str, torch.Tensor] = {}
        for name, uses in seen.items():
            if any(out.grad is None for _, out in uses):
                continue
            x = torch.cat([value.reshape(-1, value.shape[-1]) for value, _ in uses])
            gradients = [out.grad for _, out in uses if out.grad is not None]
            g = torch.cat([grad.reshape(-1, grad.shape[-1]) for grad in gradients])
            tokens[name] = tokens.get(name, 0) + len(x)
            parts[f"{name}.input_gram"] = x.T @ x
            parts[f"{name}.input_mean"] = x.sum(0)
            parts[f"{name}.output_gradient_gram"] = g.T @ g
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                parts[f"{name}.fisher"] = parameter.grad**2
                if parameter.numel() <= 30:
                    flat = parameter.grad.reshape(-1)
                    parts[f"{name}.block"] = torch.outer(flat, flat)
        for key, value in parts.items():
            totals[key] = totals.get(key, torch.zeros_like(value)) + value
    for hook in hooks:
        hook.remove()
    return {
        key: value
        / (len(labels) if key.endswith(("fisher", "block")) else tokens[key.rpartition(".")[0]])
        for key, value in totals.items()
    }


def tensors(statistics) -> dict[str, torch.Tensor]:
    return {
        name: statistics.read(name, shape, dtype=torch.float64)
        for name, shape in statistics.shapes.items()
    }


@pytest.mark.parametrize("kind", ["image", "text"])
def test_everything_equals_brute_force(kind):
    model, batch = (
        (image_model(), image_batch()) if kind == "image" else (text_model(), text_batch())
    )
    expected = brute_force(model, batch, unpadded=kind == "text")
    found = tensors(measure(model, [batch], MeasureSettings(blocks=30)))
    assert set(found) == set(expected)
    for name, value in expected.items():
        if float(value.norm()) < 1e-25:  # keys' biases do not matter to a softmax
            assert float(found[name].norm()) < 1e-25, name
        else:
            close(found[name], value, 1e-9)
    assert len([name for name in found if name.endswith(".input_gram")]) == 13 + (kind == "text")
    assert any(name.endswith(".block") for name in found)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_one_batch_of_many_is_many_batches_of_one(kind):
    if kind == "image":
        model, (inputs, labels) = image_model().float(), image_batch(64)
        inputs = {"pixel_values": inputs["pixel_values"].float()}
    else:
        model, (inputs, labels) = text_model().float(), text_batch()
    single = [
        ({key: value[i : i + 1] for key, value in inputs.items()}, labels[i : i + 1])
        for i in range(len(labels))
    ]
    whole = measure(model, [(inputs, labels)], MeasureSettings(blocks=30))
    apart = measure(model, single, MeasureSettings(blocks=30))
    assert whole.metadata == apart.metadata
    for name, value in tensors(whole).items():
        other = tensors(apart)[name]
        if float(value.norm()) > 1e-12:
            close(other, value, 1e-5)


def test_query_key_and_value_share_one_gram(monkeypatch):
    calls = []
    original = gram.gram_sum
    monkeypatch.setattr(gram, "gram_sum", lambda t: calls.append(t.shape[-1]) or original(t))
    model, batch = image_model(), image_batch()
    found = tensors(measure(model, [batch]))
    grams = {n: v for n, v in found.items() if n.endswith("input_gram")}
    trio = [v for n, v in grams.items() if any(k in n for k in ("q_proj", "k_proj", "v_proj"))]
    if not trio:
        trio = [v for n, v in grams.items() if any(k in n for k in ("query", "key", "value"))]
    assert len(trio) == 6
    assert torch.equal(trio[0], trio[1])
    assert torch.equal(trio[0], trio[2])
    # 13 layers: 13 output Grams, and 13 input Grams less two of each block's three.
    assert len(calls) == 13 + 13 - 4


class Shared(nn.Module):
    """Layers that are used several times, as in ALBERT, with inputs of one shape."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = x + self.second(torch.tanh(self.first(self.norm(x))))
        return self.head(x.mean(1))


def test_layers_that_are_used_several_times():
    model = Shared().double()
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(5, 3, 4, dtype=torch.float64, generator=generator)
    batch = ({"x": x}, torch.tensor([0, 1, 2, 0, 1]))
    expected = brute_force(model, batch, unpadded=False)
    expected = {n: v for n, v in expected.items() if not n.endswith("weight.block")}
    found = {}
    for blocks in (3, 4):  # biases of the head, at most
        found |= tensors(measure(model, [batch], MeasureSettings(blocks=blocks)))
    found = {n: v for n, v in found.items() if not n.endswith("weight.block")}
    assert set(found) == set(expected)
    for name, value in expected.items():
        close(found[name], value, 1e-9)


def test_layers_that_are_used_several_times_keep_their_own_grams():
    # Concatenated inputs of one shape must not be taken for one another (freed addresses return).
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)
            self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(6))
            self.head = nn.Linear(64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(2):
                for layer in self.layers:
                    x = torch.tanh(layer(x))
            return self.head(x.mean(1))

    model = Stack().double()
    x = torch.randn(5, 30, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    batch = ({"x": x}, torch.tensor([0, 1, 2, 0, 1]))
    expected = brute_force(model, batch, unpadded=False)
    found = tensors(measure(model, [batch]))
    for index in range(6):
        name = f"layers.{index}.input_gram"
        close(found[name], expected[name], 1e-9)


def test_activations_in_place():
    layers = [nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3)]
    torch.manual_seed(9)
    plain = nn.Sequential(*layers).double()
    in_place = nn.Sequential(
        *(nn.ReLU(inplace=True) if isinstance(layer, nn.ReLU) else layer for layer in layers)
    ).double()
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    expected = brute_force(plain, ({"input": x}, labels), unpadded=False)
    found = tensors(measure(in_place, [({"input": x}, labels)]))
    for name in found:
        close(found[name], expected[name], 1e-9)
    assert len([name for name in found if name.endswith("gram")]) == 6


@pytest.mark.parametrize(
    "settings", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}, {"groups": 2}]
)
def test_convolutions_that_cannot_be_unfolded(settings):
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(10)
            self.conv = nn.Conv2d(2, 4, 3, **settings)
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.conv(x).mean((2, 3)))

    x = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(10)).double()
    model, batch = Small().double(), ({"x": x}, torch.tensor([0, 1, 2, 0]))
    found = tensors(measure(model, [batch]))
    for name, value in brute_force(model, batch, unpadded=False).items():
        if not name.endswith(".block"):
            close(found[name], value, 1e-9)


def test_a_pooled_layer_has_one_token_an_example():
    model, batch = text_model(), text_batch()
    found = measure(model, [batch])
    assert found.metadata["tokens"] == str(sum(LENGTHS))
    a = tensors(found)["classifier.input_gram"]
    pooled = model(**batch[0], output_hidden_states=True)
    pooler = model.bert.pooler(pooled.hidden_states[-1])
    close(a, (pooler.T @ pooler / len(LENGTHS)).detach(), 1e-9)


# True Fisher --------------------------------------------------------------------------------------


def test_true_labels_are_seeded_and_independent_of_the_batches():
    model, (inputs, _) = image_model(), image_batch(24)
    pixels = inputs["pixel_values"]

    def measured(size, seed):
        batches = [({"pixel_values": pixels[i : i + size]}, None) for i in range(0, 24, size)]
        return tensors(measure(model, batches, MeasureSettings(labels="true", seed=seed)))

    name = "classifier.output_gradient_gram"
    whole = measured(24, seed=1)
    close(measured(5, seed=1)[name], whole[name], 1e-9)
    assert not torch.allclose(measured(24, seed=2)[name], whole[name])


def test_true_labels_follow_the_models_own_prediction():
    # Of one linear layer, E[g gᵀ] = diag(p) − p pᵀ under sampled labels.
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 3)
            with torch.no_grad():
                self.head.weight.zero_()
                self.head.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))

        def forward(self, x: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=self.head(x))

    count = 20_000
    batches = [({"x": torch.ones(count, 2)}, None)]
    found = tensors(measure(Fixed(), batches, MeasureSettings(labels="true", seed=3)))
    p = torch.softmax(torch.tensor([0.0, 1.0, 2.0]).double(), 0)
    expected = torch.diag(p) - torch.outer(p, p)
    difference = (found["head.output_gradient_gram"] - expected).abs().max()
    assert float(difference) < 5 * 0.5 / count**0.5


def test_empirical_statistics_need_labels_and_a_calibration_set():
    model, (inputs, _) = image_model(), image_batch()
    with pytest.raises(InputError, match="true labels"):
        measure(model, [(inputs, None)])
    with pytest.raises(InputError, match="at least one example"):
        measure(model, [])
    with pytest.raises(InputError, match="one of empirical, true"):
        MeasureSettings(labels="imperical")  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_is_refused():
    model, (inputs, labels) = image_model(), image_batch()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="finite"):
        measure(model, [(inputs, labels)])


# The model afterwards -----------------------------------------------------------------------------


def state(model: nn.Module):
    return (
        {n: (id(p), p.requires_grad, p.grad is None) for n, p in model.named_parameters()},
        {n: p.clone() for n, p in model.state_dict().items()},
        [len(m._forward_hooks) for m in model.modules()],
        [m.training for m in model.modules()],
    )


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_as_before(fails):
    model, (inputs, labels) = image_model(), image_batch()
    model.train()
    next(model.parameters()).requires_grad_(False)
    before = state(model)
    if fails:
        broken = {"pixel_values": inputs["pixel_values"][:, :, :8]}
        with pytest.raises(ValueError, match=r".+"):
            measure(model, [(inputs, labels), (broken, labels)])
    else:
        measure(model, [(inputs, labels)])
    after = state(model)
    assert before[0] == after[0]
    assert before[2:] == after[2:]
    for name, value in before[1].items():
        assert torch.equal(after[1][name], value)


def test_the_model_is_as_before_when_only_parts_of_it_were_training():
    model, (inputs, labels) = image_model(), image_batch()
    model.train()
    model.classifier.eval()
    before = state(model)
    measure(model, [(inputs, labels)])
    assert state(model)[3] == before[3]


# From a checkpoint --------------------------------------------------------------------------------


def test_names_are_those_of_the_file(tiny_family):
    checkpoint = Checkpoint.open(tiny_family / "e0")
    found = measure_task(checkpoint, load_task(tiny_family / "t0.npz"), examples=8)
    parameters = {name.removesuffix(".fisher") for name in found.shapes if "fisher" in name}
    # Every floating-point tensor of the file has a Fisher, under its own name.
    assert parameters == set(checkpoint.tensors)
    layers = {f"{layer}.weight" for layer in found.layers}
    assert layers == {
        n for n, e in checkpoint.tensors.items() if len(e.shape) == 2 and n.endswith("weight")
    }
    names = parameter_names(checkpoint.directory, tensors_of(checkpoint))
    model = loaded(checkpoint)
    for module_name, file_name in names.items():
        assert torch.equal(model.get_parameter(module_name), checkpoint.read(file_name))


def test_measure_task_takes_seeded_examples_of_the_train_split(tiny_family):
    checkpoint, task = Checkpoint.open(tiny_family / "e1"), load_task(tiny_family / "t1.npz")
    told: list[BatchDone] = []
    steps = measuring_task(checkpoint, task, MeasureSettings(examples=20, batch_size=8, seed=4))
    found = drain(steps, told.append)
    assert [event.examples for event in told] == [8, 16, 20]
    assert [event.fraction for event in told] == pytest.approx([0.4, 0.8, 1.0])
    again = measure_task(checkpoint, task, examples=20, batch_size=20, seed=4)
    other = measure_task(checkpoint, task, examples=20, seed=5)
    name = found.layers[0] + ".input_gram"
    close(tensors(again)[name], tensors(found)[name], 1e-5)
    assert not torch.allclose(tensors(other)[name], tensors(found)[name], rtol=1e-3)
    assert found.metadata == {
        "format": "mats-statistics-1", "examples": "20", "tokens": str(20 * 10), "seed": "4",
        "labels": "empirical", "fingerprint": checkpoint.fingerprint, "task": "t1",
    }  # fmt: skip


def test_measure_task_refuses_another_tasks_classes(tiny_family):
    with pytest.raises(InputError, match="classes"):
        measure_task(Checkpoint.open(tiny_family / "e0"), load_task(tiny_family / "t1.npz"))
