"""Statistics of an expert on its task: measured once, kept in a file, used by every method.

Symbols and normalisation, once for the whole package.  For one linear layer `y = W x + b`, token n
has the input `x_n` (d_in,) and the gradient `g_n` (d_out,) of its example's log-likelihood with
respect to `y_n`; N counts real tokens, padding is left out.

    input Gram             A = (1/N) Σ_n x_n x_nᵀ                       (d_in, d_in)
    input mean             μ = (1/N) Σ_n x_n                            (d_in,)
    output-gradient Gram   B = (1/N) Σ_n g_n g_nᵀ                       (d_out, d_out)
    diagonal Fisher        F = mean over examples of (∇_θ log p(y|x))²  the parameter's shape
    block Fisher           mean over examples of vec(∇_θ) vec(∇_θ)ᵀ     (numel, numel)

The log-likelihood is summed over a batch and never averaged, so that nothing depends on the batch
size.  *Empirical* statistics take the true label, *true* ones a label sampled from the model's own
prediction (Martens & Grosse, arXiv 1503.05671, section 5; Kunstner et al., arXiv 1905.12558).
"""

from .answer_grams import AT_ONCE, answer_grams
from .answering import answers, told_apart
from .cache import cached_path, measuring_once
from .collect import BatchDone, Steps, measure, measuring
from .fisher import CHUNK_BYTES
from .gram import with_bias
from .of_loader import Loss, measuring_loader
from .of_task import batches_of, drawn, drawn_rows, measure_task, measuring_task
from .optimizer import optimizer_statistics, origins, with_optimizer
from .passes import measuring_to_file
from .possible import impossible
from .ray import ClusterReady, Member, MemberDone, measuring_on_ray
from .settings import EXAMPLES, Labels, MeasureSettings
from .sketch import Sketch
from .stages import Block, Seen, Stage, blocks_of
from .store import OF_PARAMETERS, Statistics, require_output, whole_name
from .streams import Moments, Stream, feature_error, moments, room, stage_inputs

__all__ = [
    "AT_ONCE", "CHUNK_BYTES", "EXAMPLES", "OF_PARAMETERS", "BatchDone", "Block", "ClusterReady",
    "Labels", "Loss", "MeasureSettings", "Member", "MemberDone", "Moments", "Seen", "Sketch",
    "Stage", "Statistics", "Steps", "Stream",
    "answer_grams", "answers", "batches_of", "blocks_of", "cached_path", "drawn", "drawn_rows",
    "feature_error", "impossible", "measure", "measure_task", "measuring", "measuring_loader",
    "measuring_on_ray", "measuring_once",
    "measuring_task", "measuring_to_file", "moments", "optimizer_statistics", "origins",
    "require_output", "room", "stage_inputs", "told_apart", "whole_name", "with_bias",
    "with_optimizer",
]  # fmt: skip
