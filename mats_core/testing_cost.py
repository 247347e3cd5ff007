"""What the test of a merged model costs: forward passes over the examples of every task."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from .costs import Cost, passes, together
from .encoding import BATCH
from .examiner import KEPT, ROUND
from .layers import Job
from .machine import ACTIVATION, CALL, GEMM
from .output import output_specs
from .recipe import Evaluation

EXAMPLES = 500  # of a task, where nobody says how many there are
TOKENS = 128  # of an example, where the configuration does not say
TYPICAL = 0.8  # accuracy, for the number of examples that an interval needs


def testing(job: Job, examples: Mapping[str, int]) -> Cost:
    """Forward passes on every task; nothing where no expert names one."""
    settings, family = job.recipe.evaluate, job.inputs.family
    tasks = [e for e in family.experts if e.task and e.checkpoint.directory is not None]
    if not isinstance(settings, Evaluation) or not tasks:
        return Cost("merged")
    config = family.base.config
    tokens, pixels = _tokens(config), _pixels(config)
    counts = [_asked(examples.get(e.name, EXAMPLES), settings, len(tasks)) for e in tasks]
    parameters = sum(family.base.tensors[name].elements for name in family.shared)
    matrices = [family.shape(n) for n, role in family.roles.items() if role == "matrix"]
    outputs = sum(shape[0] for shape in matrices) * tokens
    products = 2 * tokens * sum(math.prod(shape) for shape in matrices)
    products += _convolutions(job, tokens) + _attention(config, tokens)
    total, rounds = sum(counts), sum(math.ceil(count / ROUND) for count in counts)
    batch = min(ROUND, BATCH, max(counts))
    stored = next(iter(output_specs(job).values()))[0].itemsize
    work = together(
        Counter({(GEMM, "float32"): float(products * total), (ACTIVATION,): outputs * total / 2}),
        passes(4 * batch * outputs // max(1, len(matrices)), 5 * len(matrices) * rounds),
        passes(4 * batch * pixels, 6 * rounds),
        passes(stored * parameters, rounds),  # the encoder as float32, once a batch
        passes(4 * parameters, rounds),
        Counter({(CALL,): 12.0 * len(matrices) * rounds + 4.0 * len(family.shared) * rounds}),
    )
    kept = sum(k for count in counts if (k := 4 * pixels * count) <= KEPT)
    widest = max((shape[0] for shape in matrices), default=0)
    alive = batch * (tokens * (4 * widest) + 3 * pixels) * 4
    return Cost("merged", work, kept + alive + 4 * parameters)


def _asked(there: int, settings: Evaluation, tasks: int) -> int:
    """How many examples of a task will be asked."""
    count = min(there, settings.examples or there)
    if settings.precision is None:
        return count
    spread = 1.96**2 * TYPICAL * (1 - TYPICAL) / tasks / 0.9**2
    enough = math.ceil(spread / settings.precision**2)
    return min(count, ROUND * math.ceil(enough / ROUND))


def _tokens(config: Mapping[str, Any]) -> int:
    image, patch = config.get("image_size"), config.get("patch_size")
    if isinstance(image, int) and isinstance(patch, int) and patch:
        return (image // patch) ** 2 + 1
    return TOKENS


def _pixels(config: Mapping[str, Any]) -> int:
    image = config.get("image_size")
    return int(config.get("num_channels", 3)) * image**2 if isinstance(image, int) else TOKENS


def _convolutions(job: Job, tokens: int) -> int:
    """A patch embedding is one product a token; other convolutions are taken as the same."""
    base, roles = job.inputs.family.base, job.inputs.family.roles
    vectors = [entry for name, entry in base.tensors.items() if roles[name] == "vector"]
    return 2 * tokens * sum(entry.elements for entry in vectors if len(entry.shape) == 4)


def _attention(config: Mapping[str, Any], tokens: int) -> int:
    width, depth = config.get("hidden_size", 0), config.get("num_hidden_layers", 0)
    # Products of single heads over few tokens run at a fraction of the rate of a large one.
    slower = max(2.0, 256 / tokens)
    return round(slower * 4 * tokens**2 * int(width) * int(depth))
