"""What a configuration names outside of the run directory; it is read as text, and nothing is run."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator, Mapping

from data import gfile
from engine.gin_config.diff import read_settings

_OWN_MODULES = ("__gin__", "engine", "data", "models")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSetting:
    """Where a configuration says that the prepared data set is.

    Attributes:
      data_dir_name: full name of the setting of the folder, such as "pairs.PairedImages.data_dir".
      data_dir: the folder.
      dataset: name of the data set in it.
    """

    data_dir_name: str
    data_dir: str
    dataset: str


def data_setting(config: str) -> DataSetting | None:
    """Finds the data set in the text of a config.gin; None if the data are no prepared data set."""
    settings = read_settings(config)
    data = next((value for name, value in settings.items() if name.endswith("Experiment.data")), "")
    owner = data.removeprefix("@").removesuffix("()")
    dataset, data_dir = (_literal(settings.get(f"{owner}.{name}", "")) for name in ("dataset", "data_dir"))
    if not (isinstance(dataset, str) and dataset and isinstance(data_dir, str) and data_dir):
        return None
    return DataSetting(data_dir_name=f"{owner}.data_dir", data_dir=data_dir, dataset=dataset)


def needed_elsewhere(config: str) -> list[str]:
    """Files that the text of a config.gin names, such as initial weights, and modules of the user's own."""
    found = {
        text
        for value in read_settings(config).values()
        for text in _texts(_literal(value))
        if "." in text and gfile.is_file(text)
    }
    modules = set(re.findall(r"^(?:import|from) (\w+)", config, re.MULTILINE)) - {*_OWN_MODULES}
    return [*sorted(found), *(f"module {name}" for name in sorted(modules))]


def _literal(value: str) -> object:
    """The value of a setting; None for what is no literal, such as @name()."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value.values()])
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
