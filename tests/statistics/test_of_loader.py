"""Statistics from a plain loader: equal to the task's, to closed forms, and plain about misfits."""

# Wrong kinds are handed in on purpose here.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOperatorIssue=false

from __future__ import annotations

import copy
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import mats_core
from mats_core import api
from mats_core.api import evaluate, measure
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.models import encode, saved_names
from mats_core.statistics.of_loader import measuring_loader
from mats_core.statistics.of_task import measure_task
from mats_core.statistics.settings import MeasureSettings
from mats_core.statistics.store import Statistics
from mats_core.tasks.loading import load
from tests.layer_cases import close
from tests.module_cases import CLASSES, KINDS, Mlp, family, fishers, images, loader

ROUNDING = 1e-12  # of the largest norm: what is smaller is zero but for rounding


def values(statistics: Statistics) -> dict[str, torch.Tensor]:
    return {name: statistics.stored(name) for name in sorted(statistics.shapes)}


def agree(ours: Statistics, theirs: Statistics, tolerance: float = 1e-6) -> None:
    assert ours.shapes == theirs.shapes
    expected = values(theirs)
    most = max(float(value.norm()) for value in expected.values())
    for name, value in expected.items():
        if float(value.norm()) > ROUNDING * most:
            close(ours.stored(name), value, tolerance)
        else:  # a key's bias changes no attention: its gradient is the processor's rounding
            assert float(ours.stored(name).norm()) <= 10 * ROUNDING * most, name


@pytest.mark.parametrize("labels", ["empirical", "true"])
def test_a_modules_loader_gives_what_the_checkpoints_task_does(tiny_family, labels):
    from transformers import ViTForImageClassification

    path, task = tiny_family / "e0", load(tiny_family / "t0.npz")
    order = np.random.default_rng(3).permutation(len(task.train))[:20]
    chosen = task.train.take(order)
    rows, given = encode(chosen, path), torch.from_numpy(chosen.labels)
    batches = [
        {**rows.batch(np.arange(at, at + 5)).inputs, "labels": given[at : at + 5]}
        for at in range(0, 20, 5)
    ]
    model = ViTForImageClassification.from_pretrained(path)
    ours = measure(model, batches, labels=labels, seed=3, blocks=30)
    how = {"examples": 20, "seed": 3, "blocks": 30, "labels": labels}
    theirs = measure_task(Checkpoint.open(path), task, **how)
    renamed = ours.under(saved_names(model))
    agree(renamed, theirs)
    assert ours.metadata["examples"] == "20"
    through = measure(path, str(tiny_family / "t0.npz"), **how)
    agree(through, theirs, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_a_batch_gives_the_same(kind):
    class Keywords(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, pixels):
            return SimpleNamespace(logits=self.inner(pixels))

    model = family(kind, 1)[1]["e0"]
    x, y = images()
    plain = measure(model, loader(), blocks=20)
    agree(measure(model, DataLoader(TensorDataset(x, y), batch_size=5), blocks=20), plain)
    agree(measure(model, iter([[x, y]]), blocks=20), plain)
    names = {f"inner.{name}": name for name, _ in model.named_parameters()}
    batches = [{"pixels": a, "labels": b} for a, b in loader(batch=7)]
    agree(measure(Keywords(model), batches, names=names, blocks=20), plain)
    first = measure(model, loader(batch=7), examples=10)
    agree(first, measure(model, [(x[:10], y[:10])]))
    assert first.metadata["examples"] == "10"
    cross = nn.CrossEntropyLoss(reduction="none")
    agree(measure(model, loader(), loss=lambda m, b: cross(m(b[0]), b[1]), blocks=20), plain)
    agree(measure(model, loader(), loss=lambda m, b: -cross(m(b[0]), b[1]).sum(), blocks=20), plain)


def test_a_linear_layer_with_squared_loss_has_its_closed_form():
    torch.manual_seed(0)
    layer = nn.Linear(5, 3).double()
    x, y = torch.randn(40, 5).double(), torch.randn(40, 3).double()
    batches = list(zip(x.split(8), y.split(8), strict=True))
    residuals = layer(x).detach() - y
    model = nn.Sequential(layer)
    found = measure(model, batches, loss=lambda m, b: 0.5 * ((m(b[0]) - b[1]) ** 2).sum(1))
    close(found.stored("0.weight.fisher"), (residuals**2).T @ x**2 / 40, 1e-12)
    close(found.stored("0.bias.fisher"), (residuals**2).mean(0), 1e-12)
    close(found.stored("0.input_gram"), x.T @ x / 40, 1e-12)
    close(found.stored("0.output_gradient_gram"), residuals.T @ residuals / 40, 1e-12)


def test_regmean_of_linear_models_is_the_pooled_least_squares_solution():
    """Each expert solves its own least squares exactly; RegMean solves all data at once."""
    torch.manual_seed(1)
    base = nn.Sequential(nn.Linear(4, 2, bias=False)).double()
    data = [(torch.randn(50, 4).double(), torch.randn(50, 2).double()) for _ in range(3)]
    experts, statistics = {}, {}
    for number, (x, y) in enumerate(data):
        expert = copy.deepcopy(base)
        expert[0].weight.data = torch.linalg.lstsq(x, y).solution.T.contiguous()
        experts[f"e{number}"] = expert
        statistics[f"e{number}"] = measure(
            expert, [(x, y)], loss=lambda m, b: 0.5 * ((m(b[0]) - b[1]) ** 2).sum(1)
        )
    merged = api.merge_models(
        base,
        experts,
        "regmean",
        statistics=statistics,
        dtype="float64",
        off_diagonal=1.0,
        damping=0.0,
    )
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    close(merged.state_dict()["0.weight"], torch.linalg.lstsq(x, y).solution.T, 1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_modules_are_measured_in_float32(dtype):
    model = family("mlp", 1)[1]["e0"].to(dtype)
    found = measure(model, loader())
    agree(found, measure(copy.deepcopy(model).float(), loader()), 0)
    assert {value.dtype for value in values(found).values()} == {torch.float32}
    assert next(model.parameters()).dtype == dtype


def test_the_model_is_left_as_it_was():
    model = family("resnet", 1)[1]["e0"].train()
    model.get_parameter("fc.bias").requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure(model, loader())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    assert not trained.pop("fc.bias")
    assert all(trained.values())
    assert not any(module._forward_hooks for module in model.modules())


class Decoder(nn.Module):
    """Predicts the next token, and is named as transformers names such models."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(7, 5), nn.Linear(5, 7)

    def forward(self, input_ids):
        return {"logits": self.head(self.embed(input_ids))}


class TinyForCausalLM(Decoder):
    pass


def test_labels_of_a_causal_model_are_moved_as_it_would_itself():
    ids = torch.randint(7, (6, 4), generator=torch.Generator().manual_seed(2))
    causal = measure(TinyForCausalLM(), [{"input_ids": ids, "labels": ids}])
    moved = torch.cat([ids[:, 1:], torch.full((6, 1), -100)], 1)
    agree(causal, measure(Decoder(), [{"input_ids": ids, "labels": moved}]), 0)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ("text", "batch of the loader"),
        (("text", torch.tensor([1])), r"found \(str, Tensor\)"),
        ({"x": "text", "labels": torch.tensor([1])}, "x: str"),
        (images(4)[0], "labels"),
        ((images(4)[0], torch.randn(4)), "For regression"),
    ],
)
def test_batches_of_another_form_are_told(batch, words):
    with pytest.raises(InputError, match=words):
        measure(Mlp(), [batch])


def test_what_cannot_be_measured_is_told():
    with pytest.raises(InputError, match="calibration set: expected at least one example"):
        measure(Mlp(), [])
    with pytest.raises(InputError, match="pass its path instead of a module"):
        measure(Mlp(), "sample:digits")
    with pytest.raises(InputError, match="what 'loss' returns"):
        measure(Mlp(), loader(), loss=lambda model, batch: model(batch[0]))
    with pytest.raises(InputError, match="labels 'true' with a loss"):
        measure(Mlp(), loader(), loss=lambda m, b: m(b[0]).sum(), labels="true")
    with pytest.raises(InputError, match="what the model returns"):
        measure(nn.Sequential(Mlp(), nn.Flatten(0)), loader())

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(64, CLASSES))

        def forward(self, x):
            return x.flatten(1) @ self.w.detach()

    with pytest.raises(InputError, match="does not depend on any of them"):
        measure(Bare(), loader())


def test_batches_may_be_any_mapping():
    class Encoding(Mapping):
        def __init__(self, **values):
            self.values_ = values

        def __getitem__(self, name):
            return self.values_[name]

        def __iter__(self):
            return iter(self.values_)

        def __len__(self):
            return len(self.values_)

    x, y = images()
    model = Mlp()
    agree(measure(model, [Encoding(x=x, labels=y)]), measure(model, [(x, y)]), 0)


def right(model: nn.Module, x: Tensor, y: Tensor, slow: set[str], size: int | None = None):
    """Every Fisher equals the brute force's; the `slow` ones are measured example by example."""
    size = size or len(x)
    found = measure(model, list(zip(x.split(size), y.split(size), strict=True)))
    truth = fishers(model, x, y)
    assert {f"{name}.fisher" for name in truth} == {n for n in found.shapes if "fisher" in n}
    for name, value in truth.items():
        close(found.stored(f"{name}.fisher"), value, 1e-5)
    told = found.metadata.get("notes", "")
    assert bool(told) == bool(slow)
    assert all(name in told for name in sorted(slow)[:4])
    assert "left_out" not in found.metadata


@pytest.mark.parametrize("device", ["meta", "gpu", "cuda:99", torch.device("meta"), 1.5])
def test_a_device_that_is_absent_is_refused_before_the_module_is_touched(device):
    model = Mlp()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=r"device '.*': expected"):
        measure(model, loader(), device=device)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    agree(measure(model, loader(), device=torch.device("cpu")), measure(model, loader()), 0)


@pytest.mark.parametrize("ask", [measure, mats_core.evaluate])
def test_a_checkpoint_is_taken_to_a_device_that_is_there(tiny_family, ask):
    path, task = tiny_family / "e0", str(tiny_family / "t0.npz")
    with pytest.raises(InputError, match="device 'gpu': expected"):
        ask(path, task, examples=4, device="gpu")
    assert ask(path, task, examples=4, device="auto") is not None


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight, self.bias)


class ChannelsFirst(nn.LayerNorm):
    def forward(self, x):
        normed = functional.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight)
        return normed.movedim(-1, 1)


class Pooled(nn.Module):
    def forward(self, x):
        return torch.tanh(x).mean((2, 3))


class Named(nn.Linear):
    """A subclass that computes as it did."""


def test_a_layer_with_a_forward_of_its_own_is_measured_by_examples():
    torch.manual_seed(0)
    model = nn.Sequential(Standardised(1, 8, 3), ChannelsFirst(8), Pooled(), Named(8, CLASSES))
    right(model, *images(5), {"0.weight", "0.bias", "1.weight", "1.bias"})
    replaced = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, CLASSES))
    replaced[1].forward = lambda x: functional.linear(x, 2 * replaced[1].weight)
    found = measure(replaced, [images(5)])
    # No Grams, and nothing of a bias that is not used.
    assert {name for name in found.shapes if name.split(".")[0] == "1"} == {"1.weight.fisher"}


def test_a_compiled_module_is_measured_as_it_was_before():
    _, experts = family("mlp", 2)
    compiled = {k: torch.compile(m, backend="eager") for k, m in experts.items()}
    plain = {k: measure(m, loader()) for k, m in experts.items()}
    found = {k: measure(m, loader()) for k, m in compiled.items()}
    for k, statistics in found.items():
        agree(statistics, plain[k].under({n: f"_orig_mod.{n}" for n in experts[k].state_dict()}))
    base = torch.compile(Mlp(), backend="eager")
    merged = api.merge_models(
        base, compiled, "fisher", statistics=found, strangers=True
    ).state_dict()
    wanted = api.merge_models(
        Mlp(), experts, "fisher", statistics=plain, strangers=True
    ).state_dict()
    for name, value in wanted.items():
        close(merged[f"_orig_mod.{name}"], value, 1e-6)
    inner = nn.Sequential(torch.compile(copy.deepcopy(experts["e0"]), backend="eager"))
    agree(measure(inner, loader()).under({f"0._orig_mod.{n}": n for n in wanted}), plain["e0"])
    own = copy.deepcopy(experts["e0"])
    own.fc2.compile(backend="eager")
    agree(measure(own, loader()), plain["e0"])


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["parallel", "compiled"])
def test_statistics_are_read_through_wrappers(wrap, recwarn):
    """Of a wrapped module for the plain one, and the other way round; with the same fingerprint."""
    _, experts = family("mlp", 2)
    wrapped = {k: wrap(copy.deepcopy(m)) for k, m in experts.items()}
    plain = {k: measure(m, loader()) for k, m in experts.items()}
    theirs = {k: measure(m, loader()) for k, m in wrapped.items()}
    merged = [
        api.merge_models(Mlp(), models_, "kfac", statistics=statistics, strangers=True)
        for models_, statistics in ((experts, plain), (experts, theirs), (wrapped, plain))
    ]
    for one in merged[1:]:
        for name, value in merged[0].state_dict().items():
            assert one.state_dict()[name].equal(value), name
    assert not [w for w in recwarn if "other numbers" in str(w.message)]


def test_a_checkpointed_layer_is_measured_as_any_other():
    class Saved(Mlp):
        def __init__(self, reentrant: bool | None) -> None:
            super().__init__()
            self.reentrant = reentrant

        def forward(self, x: Tensor) -> Tensor:
            if self.reentrant is None:
                return super().forward(x)
            inner = checkpoint.checkpoint(
                self.fc1, x.flatten(1).clone().requires_grad_(), use_reentrant=self.reentrant
            )
            return self.out(self.fc2(inner.relu()).relu())

    torch.manual_seed(0)
    plain = Saved(None)
    for reentrant in (False, True):
        model = Saved(reentrant)
        model.load_state_dict(plain.state_dict())
        agree(measure(model, loader()), measure(plain, loader()))


class Softmaxed(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(-1)


def test_probabilities_are_no_logits():
    with pytest.raises(InputError, match="expected logits, found probabilities"):
        measure(Softmaxed(), loader())
    model = Softmaxed()
    log = measure(model, loader(), loss=lambda m, b: -m(b[0]).log().gather(1, b[1][:, None])[:, 0])
    plain = Mlp()
    plain.load_state_dict(model.state_dict())
    agree(log, measure(plain, loader()), 1e-4)


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        (lambda x, y: (x, y), r"found 2 tensors.*Put the batch into a list: \[\(x, y\)\]"),
        (lambda x, y: [(x, x, y)], r"what Mlp is called with, \(x:.*found \(Tensor, Tensor"),
        (lambda x, y: [{"pixels": x, "labels": y}], r"what Mlp is called with.*found pixels"),
        (lambda x, y: [(x.long(), y)], "float32, which Mlp computes with, found int64"),
        (lambda x, y: [(x.byte(), y)], "float32, which Mlp computes with, found uint8"),
    ],
)
def test_batches_that_the_model_does_not_take_are_told(batches, words):
    with pytest.raises(InputError, match=words):
        measure(Mlp(), batches(*images()))
    if isinstance(batches(*images()), list):
        with pytest.raises(InputError, match=words):
            evaluate(Mlp(), batches(*images()))


def test_an_error_of_the_model_stays_its_own():
    class Broken(Mlp):
        def forward(self, x: Tensor) -> Tensor:
            raise TypeError("of the model")

    with pytest.raises(TypeError, match="of the model"):
        measure(Broken(), loader())


def test_where_no_gradients_are_that_is_told():
    with torch.inference_mode(), pytest.raises(InputError, match="Measure outside of it"):
        measure(Mlp(), loader())
    torch.manual_seed(0)
    model = Mlp()
    with torch.no_grad():
        found = measure(model, loader())
    agree(found, measure(model, loader()))


class Reader(nn.Module):
    """Texts of five tokens; with a table of places, or with the tokens first."""

    def __init__(self, places: bool) -> None:
        super().__init__()
        self.e, self.l, self.f = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self.wpe = nn.Embedding(10, 8) if places else None

    def forward(self, x):
        if self.wpe is None:
            return self.f(torch.tanh(self.l(self.e(x).transpose(0, 1))).mean(0))
        return self.f(torch.tanh(self.l(self.e(x) + self.wpe(torch.arange(x.shape[1])))).mean(1))


@pytest.mark.parametrize(
    ("places", "absent"), [(True, ["wpe.weight"]), (False, ["l.weight", "l.bias"])]
)
def test_a_layer_that_sees_other_rows_than_the_examples_is_measured_by_examples(places, absent):
    torch.manual_seed(0)
    model = Reader(places)
    x, y = torch.randint(11, (12, 10)), torch.randint(CLASSES, (12,))
    right(model, x, y, set(absent), 12)
    right(model, x, y, set(absent), 8)  # the last batch differs
    right(model, x, y, set(), 1)
    right(model, x[:10, :5], y[:10], set(absent), 4)
    if places:
        right(model, x[:10, :5], y[:10], set(absent), 5)
        right(model, x[:10], y[:10], set(absent), 5)


class Owner(nn.Module):
    """A parameter of its own (1, ...) and a use of it."""

    def __init__(self, shape, use) -> None:
        super().__init__()
        self.a, self.f = nn.Linear(64, 8), nn.Linear(8, CLASSES)
        self.w, self.use = nn.Parameter(torch.randn(shape)), use

    def forward(self, x):
        return self.f(torch.tanh(self.use(self.a(x.flatten(1)), self.w)).flatten(1)[:, :8])


@pytest.mark.parametrize(
    ("shape", "use", "followed"),
    [
        ((1, 1, 8), lambda h, w: h[:, None] + w, True),
        ((1, 1, 8), lambda h, w: h[:, None] * w, True),
        ((1, 1, 8), lambda h, w: torch.cat([h[:, None], w.expand(len(h), -1, -1)], 1).sum(1), True),
        ((1, 1, 8), lambda h, w: h[:, None] + w.repeat(len(h), 1, 1), True),
        ((1, 1, 8), lambda h, w: h[:, None] + w.to(h.dtype).expand(len(h), w.size(1), -1), True),
        ((1, 8, 8), lambda h, w: h @ w[0], False),
        ((1, 8, 8), lambda h, w: (h @ w)[0], False),
        ((1, 1, 8), lambda h, w: (h + w)[0], False),
        ((1, 1, 8), lambda h, w: h[:, None] + w + 2 * w, False),
        ((1, 1, 3), lambda h, w: functional.conv1d(h[:, None], w, padding=1), False),
    ],
)
def test_a_parameter_that_all_examples_share_is_followed_or_goes_alone(shape, use, followed):
    torch.manual_seed(0)
    right(Owner(shape, use), *images(6), set() if followed else {"w"})


@pytest.mark.parametrize("bias", [False, True])
def test_a_small_convolution_is_measured_by_examples(bias):
    torch.manual_seed(0)
    convolution = nn.Conv1d(1, 1, 3, padding=1, bias=bias)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Unflatten(1, (1, 8)), convolution)
    model += nn.Sequential(nn.Flatten(), nn.Linear(8, CLASSES))
    right(model, *images(6), {"3.weight", "3.bias"} if bias else {"3.weight"})


def test_labels_whose_meaning_is_plain_are_taken():
    x, y = images()
    model = Mlp()
    plain = measure(model, [(x, y)])
    for labels in (y.to(torch.uint8), y.to(torch.int32), y[:, None]):
        agree(measure(model, [(x, labels)]), plain)
    two = y % 2
    agree(measure(model, [(x, two.bool())]), measure(model, [(x, two)]))
    ignored = torch.where(torch.arange(len(y)) < 6, y, -100)
    some = measure(model, [(x, ignored)]).stored("out.bias.fisher")
    close(some, measure(model, [(x[:6], y[:6])]).stored("out.bias.fisher") * 6 / len(y), 1e-6)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (functional.one_hot(images(4)[1], CLASSES), "argmax"),
        (torch.tensor([0, 1, 2, 9]), "from 0 to 3, as there are logits, found numbers from 0 to 9"),
        (torch.tensor([0, 1, 2, -1]), "found numbers from -1 to 2"),
        (torch.tensor([0, 1, 2]), "one for each of 4 examples, found 3"),
        (torch.zeros(4, 2, dtype=torch.long), r"found \[4, 2\]"),
        (torch.full((4,), -100), "-100 everywhere"),
    ],
)
def test_labels_that_do_not_fit_are_told(labels, words):
    with pytest.raises(InputError, match=words):
        measure(Mlp(), [(images(4)[0], labels)])


def test_tokens_without_a_label_each_are_told():
    ids = torch.randint(7, (6, 4))
    with pytest.raises(InputError, match=r"labels of a batch.*\[6, 4\], found \[6\]"):
        measure(Decoder(), [(ids, ids[:, 0])])
    with pytest.raises(InputError, match="found none"):
        measure(Decoder(), [(ids,)], labels="true")
    with pytest.raises(InputError, match="-100 everywhere"):
        measure(Decoder(), [(ids, torch.full_like(ids, -100))])


def test_numbers_that_measure_nothing_are_told():
    for option in ({"examples": 0}, {"examples": -1}, {"rank": -1}, {"blocks": -1}):
        with pytest.raises(InputError, match=f"{next(iter(option))}: expected a number from"):
            measure(Mlp(), loader(), **option)
    x, y = images()
    with pytest.raises(InputError, match="batch of the loader: expected at least one example"):
        measure(Mlp(), [(x[:0], y[:0])])


def test_threads_that_measure_one_module_take_turns():
    model = Mlp().train()
    wanted = measure(model, loader())
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: measure(model, loader(batch=3)), range(6)))
    for statistics in found:
        agree(statistics, wanted, 1e-5)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    begun = measuring_loader(model, loader(), MeasureSettings())
    next(begun)
    with pytest.raises(InputError, match="one measurement at a time"):
        measure(model, loader())
    begun.close()
    agree(measure(model, loader()), wanted, 0)
    assert model.training
