"""The parts of a recipe: an expert's entry, and what each of its sections asks for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..system import FolderName

Factor = Annotated[float, Field(allow_inf_nan=False)]


class ExpertEntry(BaseModel):
    """One expert of a recipe.

    name          of the expert
    model         checkpoint or PEFT adapter: a directory, a .safetensors file or a hub id
    statistics    statistics file of this checkpoint
    optimizer     state of the AdamW that trained it, for the diagonal Fisher
    align         whether its units are put in the base's order
    weight        task weight α_m; negative to take the task away
    task          a .yaml or .npz file, or sample:NAME; evaluated if given
    examples      training examples, for FedAvg
    fingerprint   if given, the checkpoint must have it
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FolderName
    model: str
    statistics: str | None = None
    optimizer: str | None = None
    align: bool = False
    weight: float = Field(default=1.0, allow_inf_nan=False)
    task: str | None = None
    examples: int | None = Field(None, ge=1)
    fingerprint: str | None = None


class Evaluation(BaseModel):
    """What is evaluated after a merge, where the experts name their tasks.

    split       the part of each task's data that is used
    examples    at most so many a task
    precision   stop once half the 95 % interval of the normalised accuracy is at most this
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Literal["train", "validation", "test"] = "test"
    examples: int | None = Field(default=None, ge=1)
    precision: float | None = Field(default=None, gt=0, le=1)


class Refine(BaseModel):
    """How a finished merge is trained further, by distillation from its experts.

    epochs       at most
    examples     of each expert's training rows, without their labels
    rate         of AdamW at the beginning, falling to zero by a cosine
    batch        examples of each task in a step
    validation   validation rows a task on which the best epoch is chosen, without their labels
    patience     epochs without a better one that end the training
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=4, ge=0, le=1000)
    examples: int = Field(default=256, ge=1)
    rate: float = Field(default=1e-4, gt=0, le=1)
    batch: int = Field(default=64, ge=1)
    validation: int = Field(default=128, ge=1)
    patience: int = Field(default=2, ge=1)


class Routed(BaseModel):
    """Branches beside the merge that lead back to the experts, one chosen by each input.

    by         how it is chosen: in a `first_pass`, for all that an expert has changed; layer by
               layer by a linear `discriminant` of its mean input; by `prototypes`, which are those
               means (ESM++); by the `updates`, whose own answer to the input is compared; or by
               `smile`, token by token
    rank       of each branch; `full` for the whole difference, 0 for none
    layers     that are routed layer by layer: `reading`: those that read the residual stream, which
               are query, key and value and the first matrix of the MLP; `all`: those that write
               into it, too
    examples   of each expert's task, whose labels are not looked at; 0: none, from weights alone
    calibrated whether branches lead to what the routed model needs on an expert's examples, where
               there are any, instead of to the expert's weights
    damping    of that, as a share of the inputs' mean variance, towards the expert's weights
    gate       directions of each update that `updates` and `smile` look at
    top        how many branches `smile` mixes
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["first_pass", "discriminant", "prototypes", "updates", "smile"] = "first_pass"
    rank: Annotated[int, Field(ge=0, le=65536)] | Literal["full"] = 8
    layers: Literal["reading", "all"] = "reading"
    examples: int = Field(default=64, ge=0, le=4096)
    calibrated: bool = True
    damping: float = Field(default=0.03, gt=0, allow_inf_nan=False)
    gate: int = Field(default=8, ge=1, le=65536)
    top: int = Field(default=1, ge=1)

    @property
    def samples(self) -> int:
        """Examples of each task that are read: none where the weights alone decide."""
        return 0 if self.by == "smile" else self.examples

    @property
    def fits(self) -> bool:
        """Whether branches are calibrated."""
        return self.calibrated and self.samples > 0


class LoraOutput(BaseModel):
    """The merge as one LoRA on its base, instead of a whole checkpoint.

    rank     of each matrix at most; None: what its update has
    energy   the fewest directions that hold this share of each matrix's update, squared; 1: all
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int | None = Field(default=None, ge=1, le=65536)
    energy: float = Field(default=1.0, gt=0, le=1)


class Rule(BaseModel):
    """Weights and options of some layers; of two rules about one layer the later one wins.

    match     a pattern (`*`, `?`, `[…]`) of tensors' names, with or without the model's prefix
    depth     from which relative depth to which: 0 the first block, 1 the last
    weight    a factor of the layer's whole update after the merge; or of experts' weights in it, by
              their names
    options   of the method, in the place of the recipe's
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str | None = None
    depth: (
        tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] | None
    ) = None
    weight: Factor | dict[str, Factor] | None = None
    options: dict[str, Any] = Field(default_factory=dict)


TRIED = Evaluation(split="validation")  # of a merge that is only tried: test rows are not asked
FINAL = Evaluation(split="test")  # of the final figure, for which they are asked once
