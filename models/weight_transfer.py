"""Taking over weights of a trained network: all of them, or those that fit a network of another shape."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping

import keras
import numpy as np

from engine.errors import ConfigurationError

MEAN, REPEAT = INPUT_CHANNELS = ("mean", "repeat")

_LISTED = 10  # most weights that an error lists


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightTransfer:
    """Settings of taking over the weights of a trained network.

    Attributes:
      partial: take over what has the same name and shape, and leave the other weights of the network at their
        initial values. So a trained network may start one with another head or other input channels. False
        refuses whatever does not fit.
      input_channels: how, with `partial`, the first convolution takes another number of input channels.
        "mean": each channel gets the mean over the old channels. "repeat": the old channels, repeated in
        order as often as needed. Both are scaled so that the sum over the channels stays: a grey picture,
        or with "repeat" one whose further channels repeat the first, gives the same features.
      only: a pattern of names such as "down_*": other weights keep their initial values.

    Raises:
      ConfigurationError: a setting is unknown.
    """

    partial: bool = False
    input_channels: str = MEAN
    only: str = "*"

    def __post_init__(self) -> None:
        if self.input_channels not in INPUT_CHANNELS:
            raise ConfigurationError(
                f"{type(self).__name__}.input_channels = {self.input_channels!r}: unknown; use one of "
                f"{', '.join(INPUT_CHANNELS)}"
            )

    @property
    def takes_all(self) -> bool:
        """Whether a network takes all weights or none."""
        return not self.partial and self.only == "*"

    def plan(self, model: keras.Model, found: Mapping[str, np.ndarray], *, where: str) -> Plan:
        """Decides what each weight of a network gets, without changing it.

        Args:
          model: the network.
          found: path of a weight -> array in our layout.
          where: source of the arrays, for messages.

        Raises:
          ConfigurationError: nothing fits; or something does not, and `partial` is False; or a number is not
            finite.
        """
        wanted = {weight.path: tuple(weight.shape) for weight in model.weights}
        wanted = {path: shape for path, shape in wanted.items() if fnmatch.fnmatchcase(path, self.only)}
        if not wanted:
            raise ConfigurationError(
                f"{where}: {model.name} has no weight named {self.only!r}; its names are such as "
                f"{', '.join(weight.path for weight in model.weights[:2])}"
            )
        loaded = {path: found[path] for path in wanted if path in found and found[path].shape == wanted[path]}
        adapted: dict[str, np.ndarray] = {}
        first = first_kernel(model)
        if self.partial and first in found and _differs_in_input(found[first], wanted.get(first)):
            adapted[first] = adapt_input(
                found[first], wanted[first][-2], how=self.input_channels, where=f"{where}: {first}"
            )
        plan = Plan(
            model=model,
            where=where,
            how=self.input_channels,
            loaded=loaded,
            adapted=adapted,
            sources={path: array.shape for path, array in found.items()},
            kept={path: shape for path, shape in wanted.items() if path not in loaded | adapted},
            surplus=tuple(
                path for path in found if path not in wanted and fnmatch.fnmatchcase(path, self.only)
            ),
        )
        plan.check(partial=self.partial)
        return plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What the weights of a network get.

    Attributes:
      model: the network.
      where: source of the arrays.
      how: the first convolution was adapted.
      loaded: path -> array, as it was.
      adapted: path -> array, made to fit.
      sources: path -> shape of everything that the source has.
      kept: path -> shape of the weights that keep their initial values.
      surplus: paths of the source that the network does not have.
    """

    model: keras.Model
    where: str
    how: str
    loaded: Mapping[str, np.ndarray]
    adapted: Mapping[str, np.ndarray]
    sources: Mapping[str, tuple[int, ...]]
    kept: Mapping[str, tuple[int, ...]]
    surplus: tuple[str, ...]

    def check(self, *, partial: bool) -> None:
        """Raises ConfigurationError if nothing fits or, unless `partial`, if anything does not."""
        taken = {**self.loaded, **self.adapted}
        broken = [path for path, array in taken.items() if not np.isfinite(array).all()]
        if broken:
            raise ConfigurationError(
                f"{self.where}: holds numbers that are not finite in {_list(broken)}; take an earlier "
                "checkpoint"
            )
        misfits = [
            f"{path} {list(self.sources[path])} for {list(shape)}" if path in self.sources else path
            for path, shape in self.kept.items()
        ]
        if not any(array.ndim > 1 for array in taken.values()):  # a bias of the same length is chance
            raise ConfigurationError(
                f"{self.where}: no kernel of {self.model.name} is in it with the same shape "
                f"({_list(misfits)}); give the weights of a network that is alike"
            )
        if not partial and (misfits or self.surplus):
            told = [f"missing or of another shape: {_list(misfits)}"] if misfits else []
            told += [f"too many: {_list(self.surplus)}"] if self.surplus else []
            raise ConfigurationError(
                f"{self.where}: does not fit {self.model.name} ({'; '.join(told)}); give another, or take "
                "over what fits with partial = True"
            )

    def apply(self) -> None:
        """Sets the weights."""
        taken = {**self.loaded, **self.adapted}
        for weight in self.model.weights:
            if weight.path in taken:
                weight.assign(taken[weight.path])

    def adapted_line(self) -> str:
        """What was made to fit, and how."""
        how = "mean of the channels" if self.how == MEAN else "channels repeated"
        changes = (
            f"{path} {_shape(self.sources[path])} -> {_shape(array.shape)}"
            for path, array in self.adapted.items()
        )
        return f"{', '.join(changes)}, {how}"

    def table(self) -> str:
        """What became of each weight, one line each; the shapes are ours: kernels [h, w, in, out]."""
        width = max(map(len, [*self.loaded, *self.adapted, *self.kept, *self.surplus]))
        rows = [
            f"  loaded      {path:<{width}}  {_shape(array.shape)}" for path, array in self.loaded.items()
        ]
        how = "mean of the channels" if self.how == MEAN else "channels repeated"
        rows += [
            f"  adapted     {path:<{width}}  {_shape(self.sources[path])} -> {_shape(array.shape)}, {how}"
            for path, array in self.adapted.items()
        ]
        rows += [
            f"  not loaded  {path:<{width}}  {_shape(shape)}, "
            + (f"there {_shape(self.sources[path])}" if path in self.sources else "not there")
            for path, shape in self.kept.items()
        ]
        rows += [f"  not used    {path:<{width}}  {_shape(self.sources[path])}" for path in self.surplus]
        count = len(self.loaded) + len(self.adapted)
        total = count + len(self.kept)
        head = f"{self.model.name}: {count} of {total} weights are those of {self.where}"
        return "\n".join([head, *rows])


def first_kernel(model: keras.Model) -> str:
    """The path of a network's first convolution, which takes the image; empty if it has none."""
    return next((weight.path for weight in model.weights if len(weight.shape) == 4), "")


def _differs_in_input(kernel: np.ndarray, wanted: tuple[int, ...] | None) -> bool:
    """Whether a kernel [h, w, in, out] differs in its input channels only."""
    here = kernel.shape
    if wanted is None:
        return False
    return len(here) == 4 and here[-2] != wanted[-2] and (*here[:-2], here[-1]) == (*wanted[:-2], wanted[-1])


def adapt_input(kernel: np.ndarray, channels: int, *, how: str, where: str = "") -> np.ndarray:
    """Makes the kernel of a convolution take another number of input channels; see `WeightTransfer`.

    Args:
      kernel: [h, w, in, out].
      channels: that it shall take.
      how: one of INPUT_CHANNELS.
      where: the kernel is, for the error.

    Returns:
      [h, w, channels, out], with the same sum over the input channels.

    Raises:
      ConfigurationError: channels would be lost by repeating.
    """
    old = kernel.shape[-2]
    if how == MEAN:
        share = kernel.sum(axis=-2, keepdims=True) / channels  # [h, w, 1, out]
        return np.repeat(share, channels, axis=-2)
    if channels < old:
        raise ConfigurationError(
            f"{where}: has {old} input channels for {channels}, so some would be lost by repeating; set "
            "input_channels = 'mean'"
        )
    source = np.arange(channels) % old
    copies = np.bincount(source)[source]  # [channels]
    return kernel[:, :, source] / copies[:, np.newaxis].astype(kernel.dtype)


def _shape(shape: tuple[int, ...]) -> str:
    return str(list(shape))


def _list(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
