"""One process trains in a run directory: the lock of a disk, and the lease of a store."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from engine.distribution.strategies import is_chief_process
from engine.errors import ConfigurationError
from engine.storage import run_lock
from engine.storage.atomic_files import write_text
from engine.storage.run_directory import RunDirectory
from engine.train import train

HOLD = """
import sys, time
from engine.storage.run_directory import RunDirectory
with RunDirectory(sys.argv[1]).hold_lock():
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def lease_path(monkeypatch):
    """Where no file can be locked, with a lease that is renewed and expires soon."""
    monkeypatch.setattr(run_lock, "RENEW_SEC", 0.1)
    monkeypatch.setattr(run_lock, "EXPIRE_SEC", 1.5)
    monkeypatch.setattr(run_lock, "SETTLE_SEC", 0.2)
    path = f"ram://locks/{time.monotonic_ns()}/lock"
    tf.io.gfile.makedirs(os.path.dirname(path))
    return path


def write(path, owner):
    write_text(path, json.dumps(owner))  # at once, as a store does


def owner_elsewhere():
    return {"host": "elsewhere", "boot": "b", "pid": 7, "started": "then", "token": "t", "renewed": 0}


def test_a_full_disk_is_one_line_and_frees_the_lock(tmp_path):
    """The operating system refuses larger files, as a full disk would."""
    path = str(tmp_path / "lock")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        refusal = pytest.raises(
            ConfigurationError, match=r"^run a: cannot be written \(.*\); make room there"
        )
        with refusal, run_lock.hold(path, what="run a"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with run_lock.hold(path, what="run a"):
        pass


def test_a_second_process_is_refused_until_the_first_has_died(tmp_path):
    workdir = str(tmp_path)
    first = subprocess.Popen([sys.executable, "-c", HOLD, workdir], stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    with pytest.raises(ConfigurationError) as refusal:
        train(gin_files=["gin/quickstart.gin"], workdir=workdir)
    assert f"--workdir={workdir}: process {first.pid} on " in str(refusal.value)
    assert "is training there; stop it or wait" in str(refusal.value)
    assert os.listdir(workdir) == ["lock"]
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    with RunDirectory(workdir).hold_lock():
        pass


def test_a_second_start_in_the_same_process_is_refused(tmp_path):
    with RunDirectory(str(tmp_path)).hold_lock():
        with pytest.raises(ConfigurationError, match=f"process {os.getpid()} on"):
            RunDirectory(str(tmp_path)).hold_lock().__enter__()
    with RunDirectory(str(tmp_path)).hold_lock():  # released, though the file stays
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / "lock").read_text() == ""


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(ConfigurationError, match=r"--workdir=.*cannot be written \(Is a directory\)"):
        RunDirectory(str(tmp_path)).hold_lock().__enter__()


def test_a_lease_that_is_renewed_is_refused(lease_path):
    with run_lock.hold(lease_path, what="--workdir=x"):
        with pytest.raises(ConfigurationError, match=f"--workdir=x: process {os.getpid()} on .* is training"):
            run_lock.hold(lease_path, what="--workdir=x").__enter__()
    assert not tf.io.gfile.exists(lease_path)


def test_a_lease_that_is_not_renewed_is_taken_over(lease_path, capsys):
    write(lease_path, owner_elsewhere())
    started = time.monotonic()
    with run_lock.hold(lease_path, what="--workdir=x"):
        assert time.monotonic() - started > 1.5
        assert "held by process 7 on elsewhere (started then); waiting" in capsys.readouterr().out
        assert json.loads(tf.io.gfile.GFile(lease_path).read())["pid"] == os.getpid()


def test_the_lease_of_a_process_that_died_on_this_machine_is_taken_over_at_once(lease_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with run_lock.hold(lease_path, what="--workdir=x"):
        mine = json.loads(tf.io.gfile.GFile(lease_path).read())
    write(lease_path, mine | {"pid": child.pid})
    started = time.monotonic()
    with run_lock.hold(lease_path, what="--workdir=x"):
        assert time.monotonic() - started < 1.0


def test_of_two_that_start_at_once_the_last_to_write_goes_on(lease_path, monkeypatch):
    sleep = time.sleep

    def another_writes(sec):
        write(lease_path, owner_elsewhere())
        sleep(sec)

    monkeypatch.setattr(run_lock.time, "sleep", another_writes)
    with pytest.raises(ConfigurationError, match=r"process 7 on elsewhere \(started then\) is training"):
        run_lock.hold(lease_path, what="--workdir=x").__enter__()


def test_a_process_that_lost_its_lease_says_so(lease_path):
    with run_lock.hold(lease_path, what="--workdir=x") as lock:
        lock.check()
        write(lease_path, owner_elsewhere())
        time.sleep(0.5)
        with pytest.raises(ConfigurationError, match=r"process 7 on elsewhere .* has taken over the run"):
            lock.check()
    assert json.loads(tf.io.gfile.GFile(lease_path).read())["pid"] == 7  # left to its owner


@pytest.mark.parametrize(
    ("config", "is_chief"),
    [
        ("", True),
        ({"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}, True),
        ({"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 1}}, False),
        ({"cluster": {"chief": ["c"], "worker": ["a"]}, "task": {"type": "worker", "index": 0}}, False),
        ({"cluster": {"chief": ["c"], "worker": ["a"]}, "task": {"type": "chief", "index": 0}}, True),
    ],
)
def test_the_chief_locks_for_all_workers(monkeypatch, config, is_chief):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config) if config else "")
    assert is_chief_process() == is_chief
