"""How every command-line program here starts and ends: flags, one-line errors, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from data.errors import DataError
from engine.task import ConfigurationError
from engine.trainer import Diverged, Interrupted

DONE, BAD_INPUT, DIVERGED, INTERRUPTED = 0, 2, 3, 42


def run_program(main: Callable[[], None]) -> None:
    """Parses the flags and runs `main`; leaves the process with one of the exit codes.

    0 done; 2 bad configuration or input (one line on stderr says what, where and how to mend);
    3 diverged; 42 interrupted and saved, start again; 1 anything else, with its traceback.
    """
    logging.set_verbosity(logging.WARNING)
    app.run(lambda argv: sys.exit(_exit_code(main, argv)), flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _complain(f"{error}; --help lists the flags")
        sys.exit(BAD_INPUT)


def _exit_code(main: Callable[[], None], argv: Sequence[str]) -> int:
    try:
        if len(argv) > 1:
            raise ConfigurationError(f"{argv[1]!r}: unexpected argument; every option is a flag, see --help")
        main()
    except (ConfigurationError, DataError) as error:
        _complain(str(error))
        return BAD_INPUT
    except Diverged as error:
        _complain(str(error))
        return DIVERGED
    except Interrupted as error:
        _complain(str(error))
        return INTERRUPTED
    return DONE


def _complain(message: str) -> None:
    print(" ".join(message.split()), file=sys.stderr, flush=True)
