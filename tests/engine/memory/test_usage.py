"""The line through measured peaks, what limits memory, and what XLA reports."""

import resource
import subprocess
import sys

import psutil
import pytest

from engine.memory import usage
from engine.memory.usage import MemoryModel

GIB = 2**30


def test_line_through_points():
    # Batches 1, 2, 3 are -1, 0, 1 from their mean: slope (-108 + 132) / 2, constant 120 - 2 x 12.
    assert MemoryModel.fit([(1, 108), (2, 120), (3, 132)]) == MemoryModel(
        constant_bytes=96, bytes_per_example=12
    )
    # Off the line: means 3 and 130; covariance -2 x -30 + -1 x -10 + 3 x 40 = 190, spread 14.
    assert MemoryModel.fit([(1, 100), (2, 120), (6, 170)]) == MemoryModel(
        constant_bytes=round(130 - 3 * 190 / 14), bytes_per_example=14
    )


def test_line_that_falls_or_starts_below_zero():
    assert MemoryModel.fit([(4, 70)]) == MemoryModel(constant_bytes=70, bytes_per_example=0)
    assert MemoryModel.fit([(1, 90), (2, 80), (4, 70)]) == MemoryModel(constant_bytes=80, bytes_per_example=0)
    # Through the origin: (1 x 10 + 3 x 90) / (1 + 9).
    assert MemoryModel.fit([(1, 10), (3, 90)]) == MemoryModel(constant_bytes=0, bytes_per_example=28)


@pytest.mark.parametrize("budget, expected", [(0, 0), (109, 0), (110, 1), (119, 1), (120, 2), (1000, 90)])
def test_largest_within_a_budget(budget, expected):
    model = MemoryModel(constant_bytes=100, bytes_per_example=10)
    assert model.largest(budget) == expected
    assert model.at(expected + 1) > budget


def test_examples_that_cost_nothing():
    model = MemoryModel(constant_bytes=100, bytes_per_example=0)
    assert (model.largest(99), model.largest(100)) == (0, sys.maxsize)


@pytest.fixture
def control_groups(tmp_path, monkeypatch):
    """Replaces the machine's control groups; returns what is then left of each limit."""

    def make(membership, files):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return list(usage._cgroup_free_bytes(str(tmp_path / "membership"), str(tmp_path / "root")))

    return make


def test_nested_control_groups_of_version_2(control_groups):
    files = {
        "memory.stat": "anon 1\n",  # the root has no limit
        "outer/memory.max": "5000\n",
        "outer/memory.current": "4000\n",
        "outer/memory.stat": "anon 3000\ninactive_file 700\nslab 1\n",
        "outer/inner/memory.max": "max\n",
        "outer/inner/memory.current": "3000\n",
    }
    assert control_groups("0::/outer/inner\n", files) == [1700]
    # In a container the path may be the host's, while the mount is the container's own group.
    files = {"memory.max": "900\n", "memory.current": "400\n"}
    assert control_groups("0::/kubepods/pod7\n", files) == [500]


def test_control_groups_of_version_1(control_groups):
    files = {
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": "5000\n",
        "memory/job/memory.limit_in_bytes": "3000\n",
        "memory/job/memory.usage_in_bytes": "1000\n",
        "memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 250\n",
        "cpu/job/memory.limit_in_bytes": "1\n",
    }
    left = control_groups("9:name=systemd:/job\n4:memory:/job\n1:cpu:/job\n0::/\n", files)
    assert left == [9223372036854771712 - 5000, 2250]


def test_no_control_groups(tmp_path):
    assert list(usage._cgroup_free_bytes(str(tmp_path / "none"))) == []


def test_the_least_is_what_is_free(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 7 * GIB}))
    monkeypatch.setattr(usage, "_cgroup_free_bytes", lambda: iter([]))
    limits = {resource.RLIMIT_AS: resource.RLIM_INFINITY, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which], limits[which]))
    assert usage.free_host_bytes() == 7 * GIB
    used = psutil.Process().memory_info().vms
    limits[resource.RLIMIT_AS] = used + 5 * GIB
    assert usage.free_host_bytes() == pytest.approx(5 * GIB, abs=GIB / 10)
    monkeypatch.setattr(usage, "_cgroup_free_bytes", lambda: iter([9 * GIB, 3 * GIB]))
    assert usage.free_host_bytes() == 3 * GIB
    monkeypatch.setattr(usage, "_cgroup_free_bytes", lambda: iter([-1]))
    assert usage.free_host_bytes() == 0


def test_this_machine():
    assert 0 < usage.free_host_bytes() <= psutil.virtual_memory().total
    assert usage.resident_bytes() <= usage.peak_resident_bytes() * 1.01


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux only")
def test_the_peak_starts_again():
    block = b"x" * (64 * 2**20)
    with_block = usage.peak_resident_bytes()
    del block
    usage.reset_peak_resident()
    assert usage.peak_resident_bytes() < with_block - 60 * 2**20


def test_xla_report_grows_with_the_batch(tmp_path):
    assert usage.xla_report_bytes(str(tmp_path)) is None
    code = """
import os, sys, tensorflow as tf
weights = tf.Variable(tf.ones([256, 256]))
@tf.function(jit_compile=True)
def step(x):
    return tf.matmul(tf.nn.relu(tf.matmul(tf.sin(x), weights)), weights)
for batch in (256, 1024):
    step(tf.ones([batch, 256]))
    os.mkdir(f"{sys.argv[1]}/{batch}")
    for name in os.listdir(sys.argv[1]):
        if name.endswith("report.txt"):
            os.rename(f"{sys.argv[1]}/{name}", f"{sys.argv[1]}/{batch}/{name}")
"""
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={"XLA_FLAGS": f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"},
        check=True,
        capture_output=True,
    )
    small, large = (usage.xla_report_bytes(str(tmp_path / str(batch))) for batch in (256, 1024))
    # float32: arguments, results and weights at least; every row needs the same.
    assert small >= 4 * 256 * (256 + 256 + 256)
    assert large - small >= 4 * 256 * 2 * (1024 - 256)
    assert large <= 4 * small
