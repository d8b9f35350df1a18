"""Ctrl-C and SIGTERM while a program is still importing: one line and an exit code, no traceback.

Importing TensorFlow takes seconds. A notebook or a program of the user's keeps its own handlers; ours
take over again in `engine.cli.program` when everything is there.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

INTERRUPTED = 42
AT_ONCE = "interrupted at once; the same command goes on from the last checkpoint, if there is one"


def _end(number, frame) -> None:
    del number, frame
    # Nothing is there yet that would have to be unwound, and in the middle of an import little works.
    os.write(_stderr, f"{AT_ONCE}\n".encode())
    os._exit(INTERRUPTED)


# `python -m engine.train` imports this package before it has found the program; else it is our script.
_is_program = sys.argv[0] == "-m" or os.path.basename(sys.argv[0]).startswith("gantry-")
if _is_program and threading.current_thread() is threading.main_thread():
    _stderr = os.dup(2)  # which is turned off while TensorFlow is imported
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, _end)
