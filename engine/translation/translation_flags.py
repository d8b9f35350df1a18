"""Which flags of engine.translate go together."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import ConfigurationError
from engine.pictures.picture_formats import check_format
from engine.pictures.trained_size import NONE, RESIZES

_FLAGS = {
    "workdir": "checkpoint weights norm_mode dropout side_vector side_map direction samples code_from resize",
    "torch_checkpoint": "network norm_mode samples",
    "model": "side_vector side_map samples",
}
"""Source of networks -> the flags that go with it."""

_DEFAULTS = {"checkpoint": "latest", "dropout": False, "resize": NONE}
"""Of those flags that are not None by default."""


def check_flags(given: Mapping[str, object]) -> None:
    """Checks the flags that need nothing else to be checked.

    Args:
      given: all flags of the program, by name.

    Raises:
      ConfigurationError: flags are out of range, or exclude or need each other.
    """
    _check_source(given)
    resize, samples, seed = given["resize"], given["samples"], given["seed"]
    if resize not in RESIZES:
        raise ConfigurationError(f"--resize={resize}: unknown; use one of {', '.join(RESIZES)}")
    check_format(str(given["format"]))
    if isinstance(samples, int) and samples < 1:
        raise ConfigurationError(f"--samples={samples}: must be at least 1; raise it")
    if not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise ConfigurationError(f"--seed={seed}: must be from 0 to 2**31 - 1; change it")
    if seed and samples is None:
        raise ConfigurationError(f"--seed={seed}: goes with --samples; give both, or leave it out")
    if samples is not None and given["code_from"] is not None:
        raise ConfigurationError(
            f"--samples={samples}, --code_from={given['code_from']}: exclude each other; give one of them"
        )
    if given["target"] is not None and not given["compare"]:
        raise ConfigurationError(
            f"--target={given['target']}: goes with --compare; give both, or leave it out"
        )


def _check_source(given: Mapping[str, object]) -> None:
    """Checks that there is one source of networks, and only its flags."""
    sources = [name for name in _FLAGS if given[name] is not None]
    if len(sources) != 1:
        raise ConfigurationError(
            "--workdir, --torch_checkpoint, --model: need exactly one; give --workdir=RUN, "
            "--torch_checkpoint=FILE or --model=EXPORT"
        )
    [source] = sources
    known = dict.fromkeys(name for names in _FLAGS.values() for name in names.split())
    for name in known:
        value = given[name]
        # An unknown --resize is refused as such.
        if value == _DEFAULTS.get(name) or name in _FLAGS[source].split():
            continue
        if name == "resize" and value not in RESIZES:
            continue
        fitting = " or ".join(f"--{other}" for other, names in _FLAGS.items() if name in names.split())
        shown = f"--{name}" if value is True else f"--{name}={value}"
        raise ConfigurationError(f"{shown}: goes with {fitting}; leave it out")
