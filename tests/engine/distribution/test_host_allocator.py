"""A process keeps the memory that it frees, so that the next allocation faults no page in."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from engine.distribution.host_allocator import keep_freed_memory
print(keep_freed_memory())
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(48 * 2**20, np.uint8) for _ in range(2)]
    del blocks
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""
PAGES = 2 * 48 * 2**20 // os.sysconf("SC_PAGE_SIZE")


def outcome(**environment):
    """Whether the memory is kept, and the page faults of the last round."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=clean | environment, capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")


def test_freed_memory_is_used_again():
    kept, faults = outcome()
    assert kept and faults < PAGES / 100


def test_the_users_own_allocator_settings_stand():
    # Huge pages would be faulted in by two megabytes.
    kept, faults = outcome(MALLOC_MMAP_THRESHOLD_="1000000")
    assert not kept and faults > PAGES / 1000
