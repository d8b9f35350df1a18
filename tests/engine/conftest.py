"""Fixtures of the programs of the engine."""

import pytest
from absl.flags import FlagValues

import engine.translate
from engine.cli import program


@pytest.fixture
def translate(capfd):
    """Runs engine.translate in this process: exit code, and what it wrote to stdout and stderr."""

    def run(**flags):
        values = FlagValues()
        engine.translate.define_flags(values)
        argv = ["translate"] + [f"--{name}={value}" for name, value in flags.items() if value is not None]
        rest = values(argv)
        capfd.readouterr()
        code = program.exit_code(engine.translate.main, rest, values)
        return code, *capfd.readouterr()

    return run
