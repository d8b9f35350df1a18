"""What a run has to know of its data set to be used without it: shapes, value ranges, geometry, names."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Self

from data.imaging import OneHot


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """How a data set stores the images of one role.

    Attributes:
      channels: of an image.
      dtype: "uint8", "uint16" or "float32".
      value_range: lowest and highest possible value, which networks see as -1 and 1.
      alpha: whether the last channel is transparency.
    """

    channels: int
    dtype: str
    value_range: tuple[float, float]
    alpha: bool = False

    def __str__(self) -> str:
        low, high = self.value_range
        return f"{self.dtype} of {low:g} to {high:g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataDescription:
    """A data set as a run sees it.

    Attributes:
      dataset: its name.
      train_examples: training examples in one epoch.
      evaluation_split: the split for evaluation during training.
      is_paired: whether each target is the ground truth of its input.
      colour_space: one of `data.imaging.COLOUR_SPACES`, in which networks see images with 3 channels.
      shapes: of the features of an example, by name: images [H, W, C], vectors [K].
      dtypes: of the same features.
      images: how "input", "target" and "side_map" are stored, as far as that is known.
      load_size: (height, width) in pixels to which training resizes images; None if it does not.
      crop_size: (height, width) in pixels that training cuts out of them.
      resize: "resize", or "resize_with_pad", which keeps the aspect ratio.
      direction: "AtoB" if the input is image A, "BtoA" if it is B; None for data without A and B.
      target_kind: "classes" or "numbers" if the target is a vector; None if it is an image.
      target_names: of the classes or numbers of such a target.
      side_classes: classes that the side vector encodes; empty if it does not encode classes.
      label_roles: the roles of images whose values are classes, such as "input": nothing interpolates them.
      one_hot: the classes of those of them that networks see one-hot, by their role.
    """

    dataset: str
    train_examples: int
    evaluation_split: str
    is_paired: bool
    colour_space: str
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    images: Mapping[str, ImageFormat] = dataclasses.field(default_factory=dict)
    load_size: tuple[int, int] | None = None
    crop_size: tuple[int, int] | None = None
    resize: str = "resize"
    direction: str | None = None
    target_kind: str | None = None
    target_names: tuple[str, ...] = ()
    side_classes: tuple[str, ...] = ()
    label_roles: tuple[str, ...] = ()
    one_hot: Mapping[str, OneHot] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, data: Any, *, dataset: str, **more: Any) -> Self:
        """Describes a data set by the members that every one has.

        Args:
          data: the data set; see `engine.training_data.TrainingData`.
          dataset: its name.
          **more: the fields that cannot be told from these members.
        """
        spec = data.example_spec
        return cls(
            dataset=dataset,
            train_examples=data.train_examples,
            evaluation_split=data.evaluation_split,
            is_paired=data.is_paired,
            colour_space=data.colour_space,
            shapes={name: tuple(feature.shape) for name, feature in spec.items()},
            dtypes={name: feature.dtype.name for name, feature in spec.items()},
            **more,
        )

    def to_json(self) -> str:
        """The description as text."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote; what a newer version adds is left out.

        Raises:
          ValueError, TypeError, KeyError, AttributeError: the text is no such description.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {name: value for name, value in json.loads(text).items() if name in known}
        for name in ("load_size", "crop_size", "side_classes", "label_roles", "target_names"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        values["shapes"] = {name: tuple(shape) for name, shape in values["shapes"].items()}
        values["images"] = {
            role: ImageFormat(**(image | {"value_range": tuple(image["value_range"])}))
            for role, image in values["images"].items()
        }
        values["one_hot"] = {
            role: OneHot(classes=tuple(map(tuple, found["classes"])), value_range=tuple(found["value_range"]))
            for role, found in values.get("one_hot", {}).items()
        }
        return cls(**values)
