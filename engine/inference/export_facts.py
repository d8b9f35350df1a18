"""What gantry.json says of an exported network."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from data import gfile
from data.description import ImageFormat
from engine.errors import ConfigurationError
from engine.pictures.role_format import RoleFormat
from engine.storage.file_errors import reraise_read_errors

IMAGE, OUTPUT = "image", "output"
"""Names of the picture and of the result in exports."""

_DESCRIPTION = "gantry.json"
_SIZES = ("trained_height_width", "multiple", "smallest", "output_by_input")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """What gantry.json says; nothing without one.

    Attributes:
      inputs: name -> dtype, shape, and how pictures of it are stored.
      output: likewise.
      sizes: that the network takes.
      colour_space: in which the network itself sees colours; SavedModels take and give RGB.
      description: where it comes from, for the console.
    """

    inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    output: Mapping[str, Any] | None = None
    sizes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    colour_space: str = "rgb"
    description: str = ""

    def check_size(self, height: int, width: int) -> None:
        """Raises ConfigurationError for a size that the network does not take."""
        if not self.sizes:
            return
        multiple, trained = self.sizes["multiple"], tuple(self.sizes["trained_height_width"])
        if multiple is None:
            if (height, width) != trained:
                raise ConfigurationError(
                    f"the export takes {trained[0]}x{trained[1]} pixels (height x width) only; resize it"
                )
        elif height % multiple or width % multiple or min(height, width) < self.sizes["smallest"]:
            raise ConfigurationError(
                f"the export takes multiples of {multiple} pixels, at least {self.sizes['smallest']}, not "
                f"{height}x{width}; resize the picture"
            )

    def role(self, name: str, channels: int) -> RoleFormat:
        """How pictures of an input, or of the output, are stored.

        Args:
          name: of the input, or "output".
          channels: of the network's own, if nothing is said.
        """
        told = self.output if name == OUTPUT else self.inputs.get(name)
        if told is None:
            return RoleFormat(channels=channels)
        stored = told["stored_as"]
        low, high = stored["value_range"]
        return RoleFormat(
            channels=told["shape"][-1],
            stored=ImageFormat(
                channels=stored["channels"],
                dtype=stored["dtype"],
                value_range=(low, high),
                alpha=stored["alpha"],
            ),
        )


def read_facts(found: str) -> ExportFacts:
    """Reads the description of an export.

    Args:
      found: a file or folder in the folder of the export.

    Returns:
      What is said; nothing if there is no gantry.json.

    Raises:
      ConfigurationError: the description is damaged.
    """
    folder = found
    for _ in range(4):  # from EXPORT/saved_model/1 up to EXPORT
        if gfile.is_file(description := os.path.join(folder, _DESCRIPTION)):
            break
        folder = os.path.dirname(folder)
    else:
        return ExportFacts()
    try:
        with reraise_read_errors(description), gfile.open_text(description) as file:
            told = json.load(file)
        sizes = {name: told["sizes"][name] for name in _SIZES}
        return ExportFacts(
            inputs=dict(told["inputs"]),
            output=dict(told["outputs"][OUTPUT]),
            sizes=sizes,
            colour_space=told["network_colour_space"],
            description=f", exported at {told['run']['position_examples']} examples, {told['mode']}",
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{description}: does not describe an export ({type(error).__name__}: {error}); export again"
        ) from error
