"""Folders of any size made of one folder's images, and programs run with their memory measured."""

import itertools
import os
import resource
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def fill(folder, source, size_bytes):
    """Links a folder's images under other names until they are of a size; gives their number."""
    images = sorted(entry.path for entry in os.scandir(source) if entry.name.endswith((".jpg", ".png")))
    os.makedirs(folder, exist_ok=True)
    taken_bytes = 0
    for number, path in enumerate(itertools.cycle(images)):
        if taken_bytes >= size_bytes:
            return number
        taken_bytes += os.path.getsize(path)
        link = os.path.join(folder, f"{number:07d}{os.path.splitext(path)[1]}")
        if not os.path.lexists(link):
            os.symlink(os.path.abspath(path), link)


def peak_mib(*arguments):
    """Runs a Python program and gives its peak resident memory in MiB; its output goes to this one's."""
    environment = os.environ | {"PYTHONPATH": ROOT}
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there
    assert isinstance(usage, resource.struct_rusage)
    return usage.ru_maxrss * unit / 2**20
