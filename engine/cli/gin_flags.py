"""The flags of every program that reads gin files."""

from __future__ import annotations

from absl import flags


def define_gin_flags(values: flags.FlagValues) -> None:
    """Defines --gin_file and --gin_param."""
    flags.DEFINE_multi_string(
        "gin_file",
        [],
        "Configuration file. May be repeated: later files override earlier ones.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "gin_param", [], "Override, such as 'TOTAL_EXAMPLES = 400'. May be repeated.", flag_values=values
    )
