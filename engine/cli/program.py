"""How every command-line program here starts and ends: flags, one-line errors, exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from data.errors import DataError
from engine.cli.early_signals import AT_ONCE, INTERRUPTED
from engine.errors import (
    ConfigurationError,
    DivergenceError,
    NonFiniteOutputError,
    ReplicaMismatchError,
    RunInterruptedError,
    WorkerLostError,
)

DONE, BAD_INPUT, DIVERGED = 0, 2, 3


def run_program(
    main: Callable[[flags.FlagValues], None], define_flags: Callable[[flags.FlagValues], None]
) -> None:
    """Parses the flags and runs `main`; leaves the process with one of the exit codes.

    0 done; 2 bad configuration, input or environment, such as a full disk (one line on stderr says what,
    where and how to mend); 3 diverged, an output is not finite, or replicas differ; 42 interrupted and
    saved, or another worker was lost: start again; 1 anything else, with its traceback.

    Args:
      main: the program, given the parsed flags.
      define_flags: defines its flags. They are not defined at import, so that a notebook can import
        several programs, which share names of flags.
    """
    logging.set_verbosity(logging.WARNING)
    if {"--help", "-h"} & set(sys.argv[1:]):  # absl's own shows only flags defined in __main__
        print(help_text(sys.modules[main.__module__].__doc__, define_flags))
        sys.exit(DONE)
    define_flags(flags.FLAGS)
    app.run(lambda argv: sys.exit(_interruptible(main, argv)), flags_parser=_parse)


def help_text(description: str, define_flags: Callable[[flags.FlagValues], None]) -> str:
    """What --help prints: the program's docstring and all of its flags."""
    values = flags.FlagValues()
    define_flags(values)
    lines = [f"  --{name:<20} {values[name].help} Default: {values[name].default!r}." for name in values]
    return "\n".join([description.strip(), "", "Flags:", *lines])


def exit_code(main: Callable[[flags.FlagValues], None], argv: Sequence[str], values: flags.FlagValues) -> int:
    """Runs `main` and turns how it ended into an exit code, and an error into one line on stderr."""
    try:
        if len(argv) > 1:
            raise ConfigurationError(f"{argv[1]!r}: unexpected argument; every option is a flag, see --help")
        main(values)
    except (ConfigurationError, DataError) as error:
        return _complain(error, BAD_INPUT)
    except (DivergenceError, NonFiniteOutputError, ReplicaMismatchError) as error:
        return _complain(error, DIVERGED)
    except (RunInterruptedError, WorkerLostError) as error:
        return _complain(error, INTERRUPTED)
    except KeyboardInterrupt:  # before training began, or a second time while it was saving
        return _complain(AT_ONCE, INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return DONE


def _interruptible(main: Callable[[flags.FlagValues], None], argv: Sequence[str]) -> int:
    # Both unwind the stack, here and wherever a program does not answer them itself.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    return exit_code(main, argv, flags.FLAGS)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(_complain(f"{error}; --help lists the flags", BAD_INPUT))


def _complain(message: object, code: int) -> int:
    print(" ".join(str(message).split()), file=sys.stderr, flush=True)
    return code
