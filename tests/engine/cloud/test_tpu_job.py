"""Jobs on a TPU VM, with a stand-in for gcloud (fake_cloud.py); tpu_vm.sh is the real one, run by bash."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from absl.flags import FlagValues, IllegalFlagValueError

from engine.cloud.tpu_job_flags import check, define_flags
from engine.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[3]
FAKE = ROOT / "tests" / "helpers" / "fake_cloud.py"
STEPS = [f"step {step}: loss" for step in range(1, 7)]  # what an uninterrupted training prints
VM = ("--zone=us-west4-a", "--quiet")
DELETE = ["gcloud", "compute", "tpus", "tpu-vm", "delete", "mine", *VM]

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "flock", "git", "setsid"))), reason="needs the tools of a Linux VM"
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A git repository with the parts of Gantry that are there before anything is imported."""
    folder = tmp_path_factory.mktemp("checkout") / "gantry"
    for path in [
        "data/__init__.py",
        "data/errors.py",
        "data/quiet_tensorflow.py",
        "engine/__init__.py",
        "engine/errors.py",
        "engine/cli/__init__.py",
        "engine/cli/early_signals.py",
        "engine/cli/program.py",
        "engine/cloud/__init__.py",
        "engine/cloud/gcloud.py",
        "engine/cloud/tpu_job.py",
        "engine/tpu_job.py",
        "engine/cloud/tpu_job_flags.py",
        "engine/cloud/tpu_vm.sh",
        "gin/quickstart.gin",
        ".gitignore",
        "requirements-tpu.lock",
    ]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    for words in ("init", "add --all", "commit -m all"):
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words.split()]
        subprocess.run(git, cwd=folder, check=True, capture_output=True)
    return folder


class Job:
    """The program as a user starts it, and the cloud it sees."""

    def __init__(self, checkout, folder):
        self.checkout, self.cloud, self.output = checkout, folder / "cloud", folder / "fetched"
        for name, program in (("bin/gcloud", "gcloud"), ("vm_bin/python3.13", "python")):
            launcher = self.cloud / name
            launcher.parent.mkdir(parents=True)
            launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {FAKE} {program} "$@"\n')
            launcher.chmod(0o755)

    def run(self, *flags, **cloud):
        """Exit code, lines of stdout, lines of stderr. `cloud`: what is there, what is to go wrong."""
        state = self.cloud / "state.json.new"  # whole for a training that still reads it
        state.write_text(json.dumps(self.state() | cloud))
        state.replace(self.cloud / "state.json")
        (self.cloud / "calls.jsonl").write_text("")
        environment = os.environ | {
            "PATH": f"{self.cloud / 'bin'}:{os.environ['PATH']}",
            "FAKE_CLOUD": str(self.cloud),
        }
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [sys.executable, "-m", "engine.tpu_job", *self.flags(), *flags],
            cwd=self.checkout,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    def flags(self):
        return [
            "--name=mine",
            "--zone=us-west4-a",
            "--accelerator_type=v5litepod-8",
            "--gin_file=gin/quickstart.gin",
            '--gin_param=DATASET = "it\'s mine"',
            "--workdir=gs://bucket/runs/mine",
            f"--output={self.output}",
            "--poll_sec=0.01",
        ]

    def state(self):
        path = self.cloud / "state.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def calls(self, *words):
        """The recorded calls of gcloud that have all these words."""
        calls = [json.loads(line) for line in (self.cloud / "calls.jsonl").read_text().splitlines()]
        return [call for call in calls if set(words) <= set(call)]

    @property
    def bucket(self):
        return self.cloud / "bucket/bucket/runs/mine"


@pytest.fixture
def job(checkout, tmp_path):
    return Job(checkout, tmp_path)


def trained(lines):
    return [line for line in lines if line.startswith("step ")]


def test_trains_fetches_and_deletes(job):
    code, lines, errors = job.run("--spot", "--create_flag=--network=mine")
    assert code == 0, errors
    assert trained(lines) == STEPS
    assert (job.output / "DONE").exists()
    assert job.state()["node"] is None
    assert job.calls("create") == [
        "gcloud compute tpus tpu-vm create mine --zone=us-west4-a --quiet --accelerator-type=v5litepod-8 "
        "--version=v2-alpha-tpuv5-lite --spot --network=mine".split()
    ]
    # Quotes and spaces survive two shells.
    assert json.loads((job.bucket / "flags.json").read_text()) == [
        "--gin_file=gin/quickstart.gin",
        '--gin_param=DATASET = "it\'s mine"',
        "--workdir=gs://bucket/runs/mine",
    ]
    assert (
        "--require-hashes --requirement gantry/requirements-tpu.lock"
        in (job.cloud / "installed.txt").read_text()
    )
    # The same command again: the run is complete, so nothing is created and it is only fetched.
    shutil.rmtree(job.output)
    code, lines, _ = job.run("--spot")
    assert code == 0 and any("the run is complete" in line for line in lines)
    assert [call[3:5] for call in job.calls()][1:] == [
        ["tpu-vm", "describe"],
        ["--recursive", job.calls()[-1][4]],
    ]
    assert (job.output / "DONE").exists()


@pytest.mark.parametrize("kind", [[], ["--spot", "--queued", "--valid_until_duration=6h", "--project=p"]])
def test_dry_run_prints_what_a_run_does(job, kind):
    code, lines, _ = job.run("--dry_run", *kind)
    assert code == 0 and job.calls() == []
    printed = [shlex.split(line) for line in lines if line.startswith("gcloud ")]
    assert job.run(*kind)[0] == 0
    polls = [call for call in job.calls() if "describe" not in call]
    assert [call for call in printed if "describe" not in call] == polls
    assert [call for k, call in enumerate(job.calls()) if call != job.calls()[k - 1]] == printed


def test_a_preempted_vm_is_replaced_and_the_run_goes_on(job):
    code, lines, _ = job.run("--spot", preempt_at=3)
    assert code == 0
    steps = trained(lines)
    assert steps[:3] == STEPS[:3] and steps[-1] == STEPS[-1] and len(steps) == len(set(steps))
    assert any("mine was preempted (PREEMPTED)" in line for line in lines)
    order = [word for call in job.calls() for word in call if word in ("create", "delete")]
    assert order == ["create", "delete", "create", "delete"]


def test_a_preempted_queued_resource_is_replaced(job):
    code, lines, _ = job.run("--spot", "--queued", preempt_at=2, queue_states=["PROVISIONING"])
    assert code == 0 and (job.output / "DONE").exists()
    for text in ("is being created (WAITING_FOR_RESOURCES)", "(PROVISIONING)", "was preempted (SUSPENDED)"):
        assert any(text in line for line in lines), text
    assert [call[3] for call in job.calls("delete")] == ["queued-resources"] * 2
    assert job.state()["queue"] is job.state()["node"] is None


def test_too_many_preemptions_end_it(job):
    code, _, errors = job.run("--spot", "--max_restarts=0", preempt_at=2)
    assert code == 42 and "more often than --max_restarts" in errors[-1]
    assert job.state()["node"] is None


def test_a_broken_connection_is_taken_up_where_it_broke(job):
    code, lines, _ = job.run(drop_at=2)
    assert code == 0
    assert trained(lines) == STEPS  # none twice, none missing
    assert len(job.calls("create")) == 1
    assert len([call for call in job.calls("ssh") if " start " in call[-1]]) == 1


def test_a_training_that_the_vm_stops_is_started_again(job):
    code, lines, _ = job.run(terminate_at=2)
    assert code == 0 and (job.output / "DONE").exists()
    assert len([call for call in job.calls("ssh") if " start " in call[-1]]) == 2
    assert len(job.calls("create")) == 1


def test_the_same_command_takes_up_what_a_killed_one_left(job):
    assert job.run(kill_at=2, runs_forever=True)[0] == -9
    assert job.state()["node"] == "READY"
    code, _, errors = job.run("--gin_param=SEED = 1")
    assert code == 2 and "another training runs on this TPU VM" in errors[-1]
    assert job.state()["node"] == "READY" and not job.calls("delete")
    code, lines, _ = job.run(release_at=len(STEPS))
    assert code == 0 and trained(lines) == STEPS
    assert not job.calls("create") and len((job.cloud / "installed.txt").read_text().splitlines()) == 1


@pytest.mark.parametrize("code", [2, 3])
def test_exit_code_of_the_training(job, code):
    result, lines, errors = job.run(training_code=code)
    assert result == code
    assert trained(lines) == STEPS
    assert (job.output / "checkpoint").exists()
    assert job.state()["node"] is None


def test_an_error_of_gcloud_is_its_own_line(job):
    quota = "RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepodPerProjectPerZoneForTPUAPI' has been exceeded."
    code, _, errors = job.run(create_error=quota)
    assert code == 1
    assert errors[-1] == f"ERROR: (gcloud.compute.tpus.tpu-vm.create) {quota}"
    assert not job.calls("ssh")


def test_a_queued_request_that_fails_is_deleted(job):
    code, _, errors = job.run("--queued", queue_states=["FAILED"])
    assert code == 1
    assert "FAILED the request has expired" in errors[-1]
    assert job.state()["queue"] is None


def test_interrupted_it_saves_and_deletes(job):
    code, lines, _ = job.run(interrupt_at=2, runs_forever=True)
    assert code == 42
    assert (job.bucket / "saved").exists()
    assert trained(lines) == STEPS  # also what the training did until it had saved
    assert job.state()["node"] is None
    assert any("the same command continues the run" in line for line in lines)


def test_interrupted_with_keep_vm_says_what_is_left(job):
    code, lines, _ = job.run("--keep_vm", interrupt_at=2, runs_forever=True)
    assert code == 42
    assert job.state()["node"] == "READY" and (job.bucket / "saved").exists()
    assert not job.calls("delete")
    assert f"#   {shlex.join(DELETE)}" in lines
    # The same command again uses the VM, and what is installed there.
    (job.bucket / "checkpoint").write_text("4")
    code, lines, _ = job.run(runs_forever=False)
    assert code == 0 and trained(lines) == STEPS[4:]
    assert not job.calls("create") and len((job.cloud / "installed.txt").read_text().splitlines()) == 1


def test_interrupted_while_the_vm_is_created(job):
    code, _, _ = job.run(interrupt_create=True, delete_errors=1)
    assert code == 42
    assert len(job.calls("delete")) == 2 and job.state()["node"] is None


def test_a_vm_that_cannot_be_deleted_is_named(job):
    code, lines, _ = job.run(delete_errors=9)
    assert code == 1 and (job.output / "DONE").exists()
    assert f"#   {shlex.join(DELETE)}" in lines
    assert any("an operation is in progress" in line for line in lines)


def test_the_code_is_what_lies_here(job):
    path = job.checkout / "gin/quickstart.gin"
    before = path.read_text()
    try:
        path.write_text("# not committed\n")
        (job.checkout / "gin/new.gin").write_text("")
        code, lines, _ = job.run("--keep_vm")
        assert code == 0 and any("git does not track: gin/new.gin" in line for line in lines)
        assert (job.cloud / "vm/gantry/gin/quickstart.gin").read_text() == "# not committed\n"
        with tarfile.open(job.cloud / "vm/gantry.tar.gz") as archive:
            assert "gin/new.gin" not in archive.getnames()
        code, _, errors = job.run("--gin_file=gin/new.gin")
        assert code == 2 and "git add gin/new.gin" in errors[0]
    finally:
        path.write_text(before)
        (job.checkout / "gin/new.gin").unlink()


def test_a_vm_of_something_else_is_left_alone(job):
    (job.cloud / "vm").mkdir()
    code, _, errors = job.run(node="READY", hosts=4)
    assert code == 2 and len(errors) == 1 and "4 host(s)" in errors[0]
    assert not job.calls("delete") and job.state()["node"] == "READY"


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--workdir=runs/mine"], "gs://BUCKET/runs/NAME"),
        (["--accelerator_type=v4-32"], "several hosts"),
        (["--accelerator_type=a100"], "unknown"),
        (["--gin_file=gin/none.gin"], "no such file"),
        (["--gin_file=/etc/passwd"], "lies outside"),
        (["--name="], "no --name given"),
        (["--name=Mine"], "small letters"),
        (["--valid_until_duration=6h"], "--queued"),
        (["--poll_sec=-1"], "poll_sec"),
    ],
)
def test_bad_flags(job, monkeypatch, flags, expected):
    monkeypatch.chdir(job.checkout)
    values = FlagValues()
    define_flags(values)
    with pytest.raises((ConfigurationError, IllegalFlagValueError), match=expected) as error:
        values(["tpu_job", *job.flags(), *flags])
        check(values, checkout=job.checkout)
    assert "\n" not in str(error.value)


def test_starts_without_tensorflow(checkout):
    script = "import sys, engine.tpu_job; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=checkout, check=True)
