"""Handles Ctrl-C and SIGTERM while a program is still importing: one line and an exit code, no traceback.

Importing TensorFlow takes seconds. A notebook or a user's own program keeps its handlers. When the imports
are done, `engine.cli.program` sets its own handlers.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

from data.quiet_tensorflow import discard_kept_output

INTERRUPTED = 42
STOPPED_WITHOUT_SAVING = "stopped without saving; the same command resumes from the last checkpoint, if any"


def _exit(number: int, frame: FrameType | None) -> None:
    del number, frame
    # Nothing has to be cleaned up yet, and in the middle of an import an exception may be swallowed.
    discard_kept_output()
    os.write(_stderr, f"{STOPPED_WITHOUT_SAVING}\n".encode())
    os._exit(INTERRUPTED)


# `python -m engine.train` imports this package before it has found the program: argv[0] is then "-m".
# Otherwise argv[0] is our console script. `gantry-prepare` has no checkpoints and another exit code.
_script = os.path.basename(sys.argv[0])
_is_program = _script == "-m" or (_script.startswith("gantry-") and not _script.startswith("gantry-prepare"))
if _is_program and threading.current_thread() is threading.main_thread():
    _stderr = os.dup(2)  # stderr itself is kept back while TensorFlow is imported
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, _exit)
