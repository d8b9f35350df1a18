"""What a run keeps of its data set, as text and back."""

import dataclasses
import json

import pytest

from data.description import DataDescription, ImageFormat
from data.imaging import OneHot

WHOLE = DataDescription(
    dataset="mine",
    train_examples=12,
    evaluation_split="val",
    is_paired=True,
    colour_space="lab",
    shapes={"input": (32, 48, 3), "side_vector": (2,)},
    dtypes={"input": "float32", "side_vector": "float32"},
    images={"input": ImageFormat(channels=3, dtype="float32", value_range=(-0.1, 1e-7), alpha=False)},
    load_size=(36, 52),
    crop_size=(32, 48),
    direction="BtoA",
    side_classes=("summer", "été"),
    label_roles=("input", "target"),
    one_hot={"input": OneHot(classes=((0, 0, 0), (200, 30, 30)), value_range=(0, 255))},
)


@pytest.mark.parametrize("changes", [{}, {"load_size": None, "images": {}, "direction": None}])
def test_text_and_back(changes):
    description = dataclasses.replace(WHOLE, **changes)
    assert DataDescription.from_json(description.to_json()) == description


def test_a_newer_version_may_add_to_it_and_an_older_one_may_lack_what_has_a_default():
    values = json.loads(WHOLE.to_json())
    assert DataDescription.from_json(json.dumps(values | {"invented": [1]})) == WHOLE
    del values["side_classes"]
    assert DataDescription.from_json(json.dumps(values)) == dataclasses.replace(WHOLE, side_classes=())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shapes": 3}', "null"])
def test_other_text_is_refused(text):
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        DataDescription.from_json(text)
