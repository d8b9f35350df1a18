"""How every command-line program starts and ends: flags, one-line errors, exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from data.errors import DataError
from engine.cli.early_signals import INTERRUPTED, STOPPED_WITHOUT_SAVING
from engine.errors import (
    ConfigurationError,
    DivergenceError,
    NonFiniteOutputError,
    ReplicaMismatchError,
    RunInterruptedError,
    RunsFailedError,
    WorkerLostError,
)

DONE, BAD_INPUT, DIVERGED = 0, 2, 3


def run_program(
    main: Callable[..., None],
    define_flags: Callable[[flags.FlagValues], None],
    *,
    takes_arguments: bool = False,
) -> None:
    """Parses the flags, runs `main` and ends the process with one of these exit codes.

    0: done. 2: wrong configuration, input or environment, such as a full disk; one line on stderr says what
    and how to mend it. 3: diverged, an output is not finite, or replicas differ. 42: interrupted and saved,
    or another worker was lost; start again. 1: any other error, with its traceback.

    Args:
      main: the program; called with the parsed flags. --help prints the docstring of its module.
      define_flags: defines the flags. They are not defined at import, so that a notebook can import several
        programs with flags of the same name.
      takes_arguments: whether `main` also takes a list of the arguments that are not flags; they may stand
        before, between and after the flags.
    """
    logging.set_verbosity(logging.WARNING)
    if {"--help", "-h"} & set(sys.argv[1:]):  # absl's own shows only flags defined in __main__
        print(help_text(sys.modules[main.__module__].__doc__ or "", define_flags))
        sys.exit(DONE)
    define_flags(flags.FLAGS)
    flags.FLAGS.set_gnu_getopt(takes_arguments)
    app.run(
        lambda argv: sys.exit(_interruptible(main, argv, takes_arguments=takes_arguments)),
        flags_parser=lambda argv: parse_flags(argv, flags.FLAGS),
    )


def help_text(description: str, define_flags: Callable[[flags.FlagValues], None]) -> str:
    """The text that --help prints: a program's docstring and all of its flags."""
    values = flags.FlagValues()
    define_flags(values)
    lines = [f"  --{name:<20} {values[name].help} Default: {values[name].default!r}." for name in values]
    return "\n".join([description.strip(), "", "Flags:", *lines])


def parse_flags(argv: Sequence[str], values: flags.FlagValues) -> list[str]:
    """Parses the flags and returns the other arguments; ends the process with code 2 if a flag is wrong."""
    try:
        return values(argv)
    except flags.Error as error:
        sys.exit(print_error(f"{error}; --help lists the flags", BAD_INPUT))


def exit_code(
    main: Callable[..., None],
    argv: Sequence[str],
    values: flags.FlagValues,
    *,
    takes_arguments: bool = False,
) -> int:
    """Runs `main`; prints an error as one line on stderr.

    Args:
      main: the program.
      argv: the program's name and the arguments that are not flags, of which there may be none.
      values: the parsed flags.
      takes_arguments: as of `run_program`.

    Returns:
      The exit code, as of `run_program`.
    """
    try:
        _call(main, argv[1:], values, takes_arguments=takes_arguments)
    except (ConfigurationError, DataError) as error:
        return print_error(error, BAD_INPUT)
    except (DivergenceError, NonFiniteOutputError, ReplicaMismatchError) as error:
        return print_error(error, DIVERGED)
    except (RunInterruptedError, WorkerLostError) as error:
        return print_error(error, INTERRUPTED)
    except RunsFailedError as error:
        return print_error(error, error.code)
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":
            raise
        # A path of bytes that are no text: Python takes it, TensorFlow does not.
        return print_error(f"{error.object!a}: is not valid UTF-8; rename it", BAD_INPUT)
    except KeyboardInterrupt:  # before training began, or for the second time, while it was saving
        return print_error(STOPPED_WITHOUT_SAVING, INTERRUPTED)
    except BrokenPipeError:  # the reader of the output has ended, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return DONE


def _call(
    main: Callable[..., None], arguments: Sequence[str], values: flags.FlagValues, *, takes_arguments: bool
) -> None:
    if takes_arguments:
        main(values, list(arguments))
        return
    if arguments:
        raise ConfigurationError(f"{arguments[0]!r}: unexpected argument; every option is a flag, see --help")
    main(values)


def print_error(message: object, code: int) -> int:
    """Prints a message as one line on stderr and returns the exit code."""
    lines = (line.strip() for line in str(message).splitlines())
    print(" ".join(filter(None, lines)), file=sys.stderr, flush=True)
    return code


def _interruptible(main: Callable[..., None], argv: Sequence[str], *, takes_arguments: bool) -> int:
    # Both signals raise KeyboardInterrupt, also where a program has no handlers of its own, so that the stack
    # is unwound and files that are half written are removed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    return exit_code(main, argv, flags.FLAGS, takes_arguments=takes_arguments)
