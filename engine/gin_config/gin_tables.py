"""What gin knows but does not tell: which parameters are bound, and which of them were used.

gin 0.5.0, its last release, has no public functions for this, so this module reads gin's private tables. No
other module does.
"""

# ruff: noqa: SLF001  (the reason is above)

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import gin
from data import gfile
from gin import config as gin_config

_MACRO = "gin.macro"

Reference = gin_config.ConfigurableReference
"""The value of a binding to `%MACRO`, `@name` or `@name()`; `str()` gives it as it was written."""


class Bindings(NamedTuple):
    """The bound parameters of one class or function.

    Attributes:
      selector: its full name, such as "models.pix2pix.Pix2Pix".
      target: the class or function itself.
      values: by parameter.
    """

    selector: str
    target: Callable[..., Any]
    values: Mapping[str, Any]


def search_in(root: str) -> None:
    """Lets gin read files wherever TensorFlow can, each path as it is or else from `root`."""
    if root not in gin_config._LOCATION_PREFIXES:
        gin.add_config_file_search_path(root)
        # In place of gin's own reader, which takes a byte-order mark for a name.
        gin_config._FILE_READERS[:] = [(gfile.open_text, gfile.is_file)]


def bindings() -> Iterator[Bindings]:
    """All bindings that were read, without macros."""
    for (_, selector), values in gin_config._CONFIG.items():
        if selector != _MACRO:
            yield Bindings(selector, gin_config._REGISTRY[selector].wrapped, values)


def macros() -> dict[str, Any]:
    """The value of each macro that was read."""
    return {
        name: values["value"] for (name, selector), values in gin_config._CONFIG.items() if selector == _MACRO
    }


def used_macros() -> set[str]:
    """The macros that construction has used."""
    return {name for name, selector in gin_config._OPERATIVE_CONFIG if selector == _MACRO}


def is_used(key: str) -> bool:
    """Whether construction has used the parameter that a binding such as "task.Adam.beta1" names."""
    parsed = gin_config.ParsedBindingKey.parse(key)
    # What a macro such as BATCH_SCHEDULE refers to is constructed in a scope of the macro's name.
    return any(
        selector == parsed.complete_selector
        and parsed.arg_name in values
        and (not parsed.scope or f"{scope}/".startswith(f"{parsed.scope}/"))
        for (scope, selector), values in gin_config._OPERATIVE_CONFIG.items()
    )
