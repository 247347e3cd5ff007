"""What a task is: examples in three splits with their labels, and where they come from.

A reference names a task: the path of an `.npz` of images, the path of a `.yaml` that says which
files hold the rows and what is asked about them (docs/tasks.md), or `SOURCE:NAME`, where a package
advertises or a caller registers a source of tasks, such as `sample:digits`.  Validation
examples are held out from the training half; hyper-parameters are chosen on them and never on test
examples.
"""

from .augmenting import augmented
from .classes import class_number, matched, says_nothing
from .guessing import Guess, described, guessed, same_classes
from .harness import named as harness_task
from .loading import SAMPLE, files, load, names_file
from .pictures import MOST_PICTURE, one_picture
from .pool import pool
from .sources import Source, register
from .task import (
    ARRAYS,
    IMAGES,
    KINDS,
    METRICS,
    SPLITS,
    VALIDATION_MOST,
    Form,
    Kind,
    Length,
    MetricName,
    Split,
    SplitName,
    Task,
)
from .wording import Wording

__all__ = [
    "ARRAYS", "IMAGES", "KINDS", "METRICS", "MOST_PICTURE", "SAMPLE", "SPLITS", "VALIDATION_MOST",
    "Form", "Guess", "Kind", "Length", "MetricName", "Source", "Split", "SplitName", "Task",
    "Wording", "augmented", "class_number", "described", "files", "guessed", "harness_task", "load",
    "matched", "names_file", "one_picture", "pool", "register", "same_classes", "says_nothing",
]  # fmt: skip
