"""What limits the memory of the host, and how much of it this process uses."""

import resource
import sys

import psutil
import pytest

from engine.distribution import host_memory

GIB = 2**30


@pytest.fixture
def control_groups(tmp_path, monkeypatch):
    """Replaces the machine's control groups; returns what is then left of each limit."""

    def make(membership, files):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return list(host_memory._cgroup_free_bytes(str(tmp_path / "membership"), str(tmp_path / "root")))

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
    assert list(host_memory._cgroup_free_bytes(str(tmp_path / "none"))) == []


def test_the_least_is_what_is_free(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 7 * GIB}))
    monkeypatch.setattr(host_memory, "_cgroup_free_bytes", lambda: iter([]))
    limits = {resource.RLIMIT_AS: resource.RLIM_INFINITY, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which], limits[which]))
    assert host_memory.free_host_bytes() == 7 * GIB
    used = psutil.Process().memory_info().vms
    limits[resource.RLIMIT_AS] = used + 5 * GIB
    assert host_memory.free_host_bytes() == pytest.approx(5 * GIB, abs=GIB / 10)
    monkeypatch.setattr(host_memory, "_cgroup_free_bytes", lambda: iter([9 * GIB, 3 * GIB]))
    assert host_memory.free_host_bytes() == 3 * GIB
    monkeypatch.setattr(host_memory, "_cgroup_free_bytes", lambda: iter([-1]))
    assert host_memory.free_host_bytes() == 0


def test_this_machine():
    assert 0 < host_memory.free_host_bytes() <= psutil.virtual_memory().total
    assert host_memory.resident_bytes() <= host_memory.peak_resident_bytes() * 1.01


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux only")
def test_the_peak_starts_again():
    block = b"x" * (64 * 2**20)
    with_block = host_memory.peak_resident_bytes()
    del block
    host_memory.reset_peak_resident()
    assert host_memory.peak_resident_bytes() < with_block - 60 * 2**20
