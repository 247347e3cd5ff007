"""Images reach a model as its own image processor makes them, over a table of settings."""

from __future__ import annotations

import json

import numpy as np
import pytest
import transformers
from PIL import Image

from mats_core import models
from mats_core.errors import InputError
from mats_core.models import images as ours

SIDE = {"height": 12, "width": 12}
VIT = "ViTImageProcessor"
# Settings of a processor → whether they are computed here, without transformers.
SETTINGS = {
    "as usual": (VIT, {"size": SIDE}, True),
    "means of each channel": (VIT, {"size": SIDE, "image_mean": [0.1, 0.5, 0.9],
                                    "image_std": [0.2, 0.3, 0.4]}, True),
    "not normalised": (VIT, {"size": SIDE, "do_normalize": False}, True),
    "another factor": (VIT, {"size": SIDE, "rescale_factor": 1 / 127.5}, True),
    "not rescaled": (VIT, {"size": SIDE, "do_rescale": False, "image_mean": [127.5] * 3,
                           "image_std": [127.5] * 3}, True),
    "neither": (VIT, {"size": SIDE, "do_rescale": False, "do_normalize": False}, True),
    "not resized": (VIT, {"do_resize": False}, True),
    "larger": (VIT, {"size": {"height": 20, "width": 16}}, False),
    "smaller, nearest": (VIT, {"size": {"height": 7, "width": 7}, "resample": 0}, False),
    "larger, bicubic": (VIT, {"size": {"height": 20, "width": 20}, "resample": 3}, False),
    "cut from the middle": ("CLIPImageProcessor", {"size": {"shortest_edge": 14},
                                                   "crop_size": {"height": 8, "width": 8}}, False),
    "crop_pct": ("ConvNextImageProcessor", {"size": {"shortest_edge": 8}, "crop_pct": 0.5}, False),
    "BGR": ("MobileViTImageProcessor", {"size": {"shortest_edge": 12}, "crop_size": SIDE}, False),
    "an offset": ("EfficientNetImageProcessor", {"size": SIDE, "rescale_offset": True}, False),
    "of BEiT": ("BeitImageProcessor", {"size": SIDE, "do_center_crop": True, "crop_size": SIDE},
                False),
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3)).astype(np.uint8)


def config(folder, **content):
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", **content}))


@pytest.mark.parametrize("name", SETTINGS)
def test_pixels_are_those_of_the_processor(tmp_path, monkeypatch, pictures, name):
    kind, settings, here = SETTINGS[name]
    processor = getattr(transformers, kind)(**settings)
    processor.save_pretrained(tmp_path)
    config(tmp_path, image_size=12, num_channels=3)
    asked = [Image.fromarray(picture) for picture in pictures]
    theirs = processor(asked, return_tensors="pt")["pixel_values"]
    if here:
        monkeypatch.setattr(ours, "_processor", lambda *_: pytest.fail("transformers was asked"))
    found = models.pixel_values(pictures, tmp_path)
    assert found.shape == theirs.shape
    assert float((found - theirs).abs().max()) < 2e-6 * max(1.0, float(theirs.abs().max()))


def test_grey_pictures_are_repeated_and_prepared_alike(tmp_path, pictures):
    transformers.ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    config(tmp_path, image_size=8, num_channels=3)
    grey = pictures[..., :1]
    repeated = models.pixel_values(np.repeat(grey, 3, 3), tmp_path)
    assert (models.pixel_values(grey, tmp_path) == repeated).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"image_processor_type": "NoSuchProcessor", "size": SIDE}, "NoSuchProcessor"),
        ({"image_processor_type": VIT, "size": {"width": -1, "height": 5}}, "image processor"),
        ({"image_processor_type": VIT, "image_mean": "half", "image_std": [1.0] * 3}, "processor"),
        ({"auto_map": {"AutoImageProcessor": "own.Own"}, "size": {"height": 5, "width": 5},
          "image_processor_type": "Own"}, "Own"),
        ([1], "JSON object"),
        ({"image_processor_type": [VIT], "size": SIDE}, "image processor"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_followed_are_refused(tmp_path, pictures, settings, says):
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    config(tmp_path, image_size=12)
    with pytest.raises(InputError, match=says):
        models.pixel_values(pictures, tmp_path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rescale_factor": 10**400}, "'rescale_factor' of the image processor: expected a number"),
        ({"image_mean": [10**400] * 3}, "'image_mean' .*one for each of 3 channels"),
        ({"image_std": None}, "'image_std' .*found None"),
        ({"image_mean": [0.5, 0.5]}, r"found \[0.5, 0.5\]"),
    ],
)
def test_numbers_that_belong_to_no_class_of_transformers(
    tmp_path, pictures, monkeypatch, settings, says
):
    monkeypatch.setattr(ours, "_processor", lambda *_: None)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    config(tmp_path, image_size=12)
    with pytest.raises(InputError, match=says):
        models.pixel_values(pictures, tmp_path)


@pytest.mark.parametrize("content", [{"num_channels": "x"}, {"image_size": 0}, {"image_size": [3]}])
def test_sizes_of_other_kinds_are_refused(tmp_path, pictures, content):
    config(tmp_path, **content)
    with pytest.raises(InputError, match=r"config\.json|image_size"):
        models.pixel_values(pictures, tmp_path)
