"""An example of the user's: what is asked, and every way in which it cannot be."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mats_core import tasks
from mats_core.analysis.own_example import MOST_LETTERS, answering, fields
from mats_core.errors import InputError
from mats_core.evaluation import evaluate
from mats_core.figures.own_example import own_answers
from mats_core.models.modules import tensors_of
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from mats_core.system.stream import drain
from mats_core.tasks.pictures import one_picture
from tests.conftest import family_recipe

NOISE = np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)


@pytest.fixture(scope="module")
def inputs(tiny_family: Path):
    return open_inputs(parse_recipe(family_recipe(tiny_family, "average"), tiny_family))


def packed(image: np.ndarray, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def test_every_model_answers_with_the_head_of_the_task(inputs, tiny_family: Path):
    split = tasks.load(tiny_family / "t1.npz").test
    merge = tensors_of(inputs.family.experts[2].checkpoint)  # as good as any encoder
    events = answering(inputs, tiny_family, "e1", packed(split.inputs[4][:, :, 0]), {"mine": merge})
    found = drain(events)
    assert found.models == ("base", "e0", "e1", "e2", "mine")
    expert, one = inputs.family.experts[1], split.take(slice(4, 5))
    weights = [inputs.family.base, *(e.checkpoint for e in inputs.family.experts)]
    for row, checkpoint in enumerate(weights):
        right = evaluate.probabilities(tensors_of(checkpoint), inputs.family, expert, one)[0]
        assert found.probabilities[row] == pytest.approx(right, abs=1e-6)
    assert found.probabilities[4] == pytest.approx(found.probabilities[3])
    drawn = own_answers(found, ["mine"])
    taken = found.probabilities.argmax(1)
    agree = sum(taken[row] == taken[2] for row in (1, 3))
    assert f"Of the 2 other experts {agree} say what e1 says." in drawn.caption
    assert len(drawn.rows) == 5 * 4


def test_images_of_any_size_go_through_the_processor(inputs, tiny_family: Path):
    large = np.full((50, 70, 3), 200, np.uint8)
    found = drain(answering(inputs, tiny_family, "e0", packed(large, "jpeg"), {}))
    assert found.example.inputs.shape == (1, 50, 70, 3)
    assert found.probabilities.sum(1) == pytest.approx(np.ones(4))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "expected an image file, found none"),
        (b"no image", "expected a picture that Pillow can read, found cannot identify image file"),
        (packed(NOISE)[:400], "expected a picture that Pillow can read"),
        (("words",), "expected an image, found text"),
    ],
    ids=["nothing", "text", "cut off", "words"],
)
def test_what_is_no_image_is_said(inputs, tiny_family: Path, given: Any, said: str):
    with pytest.raises(InputError, match=said) as error:
        drain(answering(inputs, tiny_family, "e0", given, {}))
    assert "0x" not in str(error.value)


def test_images_that_are_too_large_are_refused(monkeypatch: pytest.MonkeyPatch):
    content = packed(np.zeros((30, 40), np.uint8))
    assert one_picture(content).shape == (30, 40, 1)
    monkeypatch.setattr("mats_core.tasks.pictures.MOST_PIXELS", 1199)
    with pytest.raises(InputError, match="at most 1,199 pixels, found 40 × 30"):
        one_picture(content)
    monkeypatch.setattr("mats_core.tasks.pictures.MOST_PICTURE", 10)
    with pytest.raises(InputError, match="expected at most 10"):
        one_picture(content)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((" ",), "expected some words, found nothing"),
        ((), "expected some words, found nothing"),
        (("a", "b"), "expected 1 texts, found 2"),
        (("a" * (MOST_LETTERS + 1),), "expected at most 20,000 letters"),
        (b"image", "expected some words"),
    ],
)
def test_texts_that_cannot_be_asked_are_said(tmp_path_factory, given: Any, said: str):
    from mats_core.analysis.own_example import _row
    from tests.text_cases import rows, write_task

    folder = tmp_path_factory.mktemp("task")
    task = tasks.load(write_task(folder, "t", rows(8, 2, 0), rows(8, 2, 1)))
    assert fields(task) == ("Text",)
    with pytest.raises(InputError, match=said):
        _row(task, given)
    assert _row(task, ("some words",)).tolist() == [["some words"]]
