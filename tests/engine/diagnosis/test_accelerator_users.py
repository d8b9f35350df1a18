"""Processes with device files open, in a made-up /proc."""

import os
import time

import pytest

from engine.diagnosis.accelerator_users import find_users, user_lines

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def proc(tmp_path):
    """A /proc of a machine that started an hour ago."""
    (tmp_path / "stat").write_text(f"cpu 1 2 3\nbtime {int(time.time()) - 3600}\n")
    (tmp_path / "self").mkdir()

    def add(pid, *targets, uid=0, command="python\0-m\0engine.train\0", started_sec=1800, name="py (x) 3"):
        folder = tmp_path / str(pid)
        (folder / "fd").mkdir(parents=True)
        for number, target in enumerate(targets):
            (folder / "fd" / str(number)).symlink_to(target)
        (folder / "cmdline").write_text(command)
        (folder / "comm").write_text("kworker\n")
        (folder / "status").write_text(f"Name:\tpython\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        rest = ["S", *["0"] * 18, str(started_sec * TICKS), "0"]
        (folder / "stat").write_text(f"{pid} ({name}) {' '.join(rest)}\n")
        return folder

    add.root = str(tmp_path)
    return add


def test_it_finds_every_kind_of_accelerator_and_nothing_else(proc):
    proc(30, "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia0", "/dev/nvidiactl", "/tmp/log")
    proc(4, "/dev/accel0", uid=0)
    proc(200, "/dev/kfd", uid=987654)
    proc(7, "/dev/vfio/3", "/dev/vfio/vfio")
    proc(8, "/dev/nvidia2 (deleted)")
    proc(9, "/dev/nvidiactl", "/dev/nvidia-uvm", "socket:[12]", "/dev/nvidia0.log", "/dev/vfio/vfio")
    found = find_users(proc.root)
    assert [(user.pid, user.devices) for user in found.users] == [
        (4, ("/dev/accel0",)),
        (7, ("/dev/vfio/3",)),
        (8, ("/dev/nvidia2 (deleted)",)),
        (30, ("/dev/nvidia0", "/dev/nvidia1")),
        (200, ("/dev/kfd",)),
    ]
    assert found.unreadable == 0
    first, last = found.users[0], found.users[-1]
    assert (first.user, last.user) == ("root", "987654")
    assert first.command == "python -m engine.train"
    assert first.since_sec == pytest.approx(1800, abs=5)
    lines = user_lines(found)
    assert len(lines) == 6
    assert lines[1] == "  process 4 of root, for 30 min: /dev/accel0: python -m engine.train"


def test_what_cannot_be_read_is_counted_and_a_process_that_ends_is_not(proc, monkeypatch):
    proc(5, "/dev/nvidia0")
    hidden = proc(6, "/dev/nvidia0")
    gone = proc(7, "/dev/nvidia0")
    for path in (gone / "fd").iterdir():
        path.unlink()
    (gone / "fd").rmdir()
    bare = proc(8, "/dev/nvidia3", command="")
    (bare / "stat").unlink()
    listdir = os.listdir

    def refused(folder):
        if folder == str(hidden / "fd"):
            raise PermissionError(folder)
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refused)  # root may read everything
    found = find_users(proc.root)
    assert [user.pid for user in found.users] == [5, 8]
    assert found.unreadable == 1
    assert found.users[1].since_sec is None and found.users[1].command == "kworker"
    assert user_lines(found)[-1] == (
        "Open files of 1 process could not be read; they may hold accelerators too"
    )


def test_this_machine_and_one_without_proc(tmp_path):
    assert user_lines(find_users(str(tmp_path / "nothing"))) == []
    mine = [user for user in find_users().users if user.pid == os.getpid()]
    assert not mine  # tests run on CPUs
