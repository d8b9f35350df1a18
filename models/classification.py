"""Classification: the class of an image."""

from __future__ import annotations

import tensorflow as tf

from data.roles import CLASSES
from engine.errors import ConfigurationError
from engine.optimizers import Adam, Optimizer
from engine.task import Step
from models.image_labels import ImageLabels
from models.label_network import LabelNetwork
from models.losses import cross_entropy


class Classification(ImageLabels):
    """Learns classes by their cross-entropy; for data whose targets are one-hot classes.

    Args:
      network: settings of the network, "classifier", which predicts logits.
      label_smoothing: share of the target's probability that is spread over all classes, in [0, 1).
      ema_decay: see `ImageLabels`.
      optimizer: see `ImageLabels`.

    Raises:
      ConfigurationError: a setting is out of its range.
    """

    name = "classifier"
    target_kind = CLASSES

    def __init__(
        self,
        *,
        network: LabelNetwork = LabelNetwork(),  # noqa: B008, frozen
        label_smoothing: float = 0.0,
        ema_decay: float | None = None,
        optimizer: Optimizer = Adam(beta1=0.9),  # noqa: B008, frozen
    ) -> None:
        super().__init__(network=network, ema_decay=ema_decay, optimizer=optimizer)
        if not 0 <= label_smoothing < 1:
            raise ConfigurationError(
                f"Classification.label_smoothing = {label_smoothing}: must lie in [0, 1); 0.1 is usual"
            )
        self.label_smoothing = label_smoothing

    def loss(self, step: Step) -> dict[str, tf.Tensor]:
        """The cross-entropy with smoothed targets, "cross_entropy" [B], in nats."""
        logits, targets = step.outputs["prediction"], step.batch["target"]
        return {"cross_entropy": cross_entropy(logits, targets, label_smoothing=self.label_smoothing)}
