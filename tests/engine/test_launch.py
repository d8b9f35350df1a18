"""The launcher of local workers, with commands that need no TensorFlow."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

LAUNCH = [sys.executable, "-m", "engine.launch"]
# A training in small: the first signal is noted and makes it end with 42, a second one ends it at once.
PATIENT = """
import os, signal, sys, time
seen = []
def note(number, frame):
    seen.append(number)
    print("signal", number, flush=True)
    if len(seen) == 2:
        os._exit(9)
signal.signal(signal.SIGTERM, note); signal.signal(signal.SIGINT, note)
print("ready", os.getpid(), flush=True)
end = time.time() + 30
while time.time() < end and (not seen or "--stay" in sys.argv):
    time.sleep(0.02)
sys.exit(42)
"""


def launch(*command, flags=("--workers=2",)):
    return subprocess.Popen(
        [*LAUNCH, *flags, "--", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(*command, flags=("--workers=2",)):
    process = launch(*command, flags=flags)
    out, errors = process.communicate(timeout=60)
    return process.returncode, out.splitlines(), errors.splitlines()


def python(text, *arguments):
    return (sys.executable, "-c", text, *arguments)


def read_pids(process, count):
    lines = [process.stdout.readline().split() for _ in range(count)]
    assert all(line[2] == "ready" for line in lines)
    return [int(line[3]) for line in lines]


def gone(pid, within_sec):
    end = time.monotonic() + within_sec
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if (
                    file.read().rpartition(")")[2].split()[0] == "Z"
                ):  # dead; only its new parent has not looked
                    return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_each_worker_has_its_tf_config_and_its_name_before_each_line():
    code, out, errors = run(
        *python(
            "import os, sys; print(os.environ['TF_CONFIG']); print('two\\nlines', end='');"
            "print('to stderr', file=sys.stderr)"
        ),
        flags=["--workers=3"],
    )
    assert code == 0
    assert sorted(errors) == [f"[worker {i}] to stderr" for i in range(3)]
    of_worker = [[line[11:] for line in out if line.startswith(f"[worker {i}] ")] for i in range(3)]
    assert [lines[1:] for lines in of_worker] == [["two", "lines"]] * 3 and len(out) == 9
    configs = [json.loads(lines[0]) for lines in of_worker]
    assert [config["task"] for config in configs] == [{"type": "worker", "index": i} for i in range(3)]
    addresses = {tuple(config["cluster"]["worker"]) for config in configs}
    assert len(addresses) == 1 and len(set(*addresses)) == 3


def test_the_launcher_needs_no_tensorflow():
    text = "import sys, engine.launch; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    subprocess.run(python(text), check=True)


@pytest.mark.parametrize(
    ("flags", "command", "said"),
    [
        (["--workers=0"], ["true"], "--workers=0"),
        (["--workers=two"], ["true"], "two"),
        (["--grace_sec=-1"], ["true"], "--grace_sec=-1"),
        (["--worker=2"], ["true"], "--worker=2"),
        (["--workers=2"], [], "no command"),
        (["--workers=2"], ["no-such-program"], "no-such-program"),
    ],
)
def test_what_cannot_be_started_is_told_in_one_line(flags, command, said):
    code, out, errors = run(*command, flags=flags)
    assert (code, out, len(errors)) == (2, [], 1) and said in errors[0]


@pytest.mark.parametrize(("ending", "expected"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_the_first_failure_ends_the_others_and_is_handed_on(ending, expected):
    """The other worker ends with 42 after SIGTERM, which is not what counts."""
    failing = f"import json, os, sys\nif json.loads(os.environ['TF_CONFIG'])['task']['index']: {ending}\n"
    began = time.monotonic()
    code, out, _ = run(*python(failing + PATIENT))
    assert code == expected and time.monotonic() - began < 20
    assert not out or out[-1] == f"[worker 0] signal {signal.SIGTERM.value}"


def test_a_worker_that_does_not_end_is_killed_after_the_grace():
    stubborn = "import json, os, signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    failing = "time.sleep(1 if json.loads(os.environ['TF_CONFIG'])['task']['index'] else 60); sys.exit(5)"
    began = time.monotonic()
    code, _, _ = run(*python(stubborn + failing), flags=["--workers=2", "--grace_sec=0.5"])
    assert code == 5 and 1.5 < time.monotonic() - began < 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handed_on_once_and_the_exit_code_is_42(number):
    process = launch(*python(PATIENT))
    read_pids(process, 2)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 42
    assert sorted(out.splitlines()) == [f"[worker {i}] signal {number.value}" for i in range(2)]


def test_a_second_signal_is_handed_on_too():
    process = launch(*python(PATIENT, "--stay"))
    read_pids(process, 2)
    for count in (1, 2):
        process.send_signal(signal.SIGTERM)
        if count == 1:
            assert [process.stdout.readline()[10:] for _ in range(2)] == [" signal 15\n"] * 2
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 42 and out.count("signal 15") == 2


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
def test_nothing_outlives_a_killed_launcher():
    """Not a worker's child either."""
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    process = launch(*python(child, PATIENT))
    pids = read_pids(process, 2)
    process.kill()
    process.wait()
    assert all(gone(pid, within_sec=10) for pid in pids)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
def test_what_a_worker_leaves_behind_is_killed():
    text = (
        "import subprocess, sys; print('ready',"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    )
    process = launch(*python(text))
    pids = read_pids(process, 2)
    process.communicate(timeout=20)
    assert process.returncode == 0 and all(gone(pid, within_sec=5) for pid in pids)
