"""What TensorFlow prints while it is imported is shown only if the import goes wrong."""

import subprocess
import sys

import pytest

IMPORT = """
import sys
import data.quiet_tensorflow
sys.path.insert(0, sys.argv[1])
import tensorflow
import os
os.write(2, b"later")
"""


@pytest.mark.parametrize(
    ("how", "code", "shown"),
    [
        ("pass", 0, "later"),
        ("os.abort()", -6, "noise"),
        ("os.kill(os.getpid(), 9)", -9, "noise"),
        ("os._exit(3)", 3, "noise"),
        ("raise ImportError('no such library')", 1, "noise"),
        ("os.write(2, b'x' * 300_000); os.abort()", -6, "noise" + "x" * 300_000),  # more than a pipe holds
    ],
)
def test_shown_only_if_the_import_goes_wrong(tmp_path, how, code, shown):
    (tmp_path / "tensorflow.py").write_text(f"import os\nos.write(2, b'noise')\n{how}\n")
    done = subprocess.run([sys.executable, "-c", IMPORT, tmp_path], capture_output=True, text=True)
    assert done.returncode == code
    traceback = code == 1
    assert done.stderr.startswith(shown) if traceback else done.stderr == shown
    assert ("ImportError: no such library" in done.stderr) == traceback
