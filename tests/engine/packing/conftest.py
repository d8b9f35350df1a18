"""A run made of a few bytes, and the program, for the tests of packed runs."""

import pytest
from absl.flags import FlagValues

import engine.pack
from engine.cli import program
from tests.helpers.packed_runs import write_checkpoint


@pytest.fixture
def packing(capfd):
    """Runs engine.pack in this process: exit code, and what it wrote to stdout and stderr."""

    def run(*argv, **flags):
        values = FlagValues()
        engine.pack.define_flags(values)
        rest = values(["pack", *argv, *(f"--{name}={value}" for name, value in flags.items())])
        capfd.readouterr()
        code = program.exit_code(engine.pack.main, rest, values)
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def small_run(tmp_path):
    """A run directory with checkpoints at 4 and 8 examples and one at 8 that is the best."""
    run = tmp_path / "run"
    for position in (4, 8):
        write_checkpoint(run / "checkpoints", position, contents=str(position).encode())
    (run / "best" / "00000008").mkdir(parents=True)
    for path in (run / "checkpoints" / "00000008").iterdir():
        (run / "best" / "00000008" / path.name).hardlink_to(path)
    (run / "config.gin").write_text("from data import pairs\n")
    (run / "train.jsonl").write_text('{"examples": 4}\n{"examples": 8}\n')
    (run / "log.txt").write_text("")
    (run / "DONE").write_text("{}\n")
    (run / "samples").mkdir()
    (run / "samples" / "samples_00000008.png").write_bytes(b"picture" * 99)
    (run / "tensorboard" / "plugins").mkdir(parents=True)
    (run / "tensorboard" / "events.out.tfevents.1").write_bytes(b"events")
    (run / "tensorboard" / "plugins" / "profile").write_bytes(b"profile")
    return run
