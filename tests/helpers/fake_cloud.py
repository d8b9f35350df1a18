"""Stands in for gcloud, for one TPU VM, and for what runs on that VM. A script; imports nothing of ours.

  fake_cloud.py gcloud ...       answers as gcloud does, and notes every call in $FAKE_CLOUD/calls.jsonl
  fake_cloud.py python ...       the VM's Python: makes environments, "installs", and "trains"

$FAKE_CLOUD holds state.json, the bucket's files, and the home folder of the VM. state.json has what is there
(`node`, `queue`: None or a state) and what is to go wrong, once each (see `Cloud.DEFAULTS`). Texts
and exit codes of errors are those of gcloud 528.
"""

import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import time

ROOT = pathlib.Path(os.environ["FAKE_CLOUD"])
VM = ROOT / "vm"
BUCKET = ROOT / "bucket"
LINES = 6  # of a training's output; one checkpoint each


class Cloud:
    DEFAULTS = {
        "node": None,
        "queue": None,
        "hosts": 1,
        "create_error": None,  # what `create` says instead of creating
        "queue_states": [],  # what a queued resource goes through before it is ACTIVE
        "preempt_at": None,  # line of the training's output at which the VM is preempted
        "drop_at": None,  # ... at which the connection breaks, and for a while all of the network
        "unanswered": 0,  # how often `describe` fails
        "interrupt_at": None,  # ... at which the caller gets SIGINT
        "kill_at": None,  # ... at which the caller gets SIGKILL
        "terminate_at": None,  # ... at which the training gets SIGTERM, as from a VM that shuts down
        "interrupt_create": False,  # SIGINT while the VM is being created
        "training_code": 0,  # what the training exits with at its end
        "delete_errors": 0,  # how often `delete` fails
        "runs_forever": False,  # the training ends only when told to, or by
        "release_at": None,  # ... this line of its output
    }

    def __init__(self):
        self.path = ROOT / "state.json"
        self.values = self.DEFAULTS | (json.loads(self.path.read_text()) if self.path.exists() else {})

    def __getitem__(self, name):
        return self.values[name]

    def __setitem__(self, name, value):
        self.values[name] = value
        new = self.path.with_suffix(f".{os.getpid()}")  # whole for those who read it meanwhile
        new.write_text(json.dumps(self.values))
        new.replace(self.path)

    def once(self, name):
        """A mishap that is to happen, which then does not happen again."""
        value = self[name]
        if value:
            self[name] = type(self).DEFAULTS[name]
        return value


cloud = Cloud()


def fail(command, text, code=1):
    print(f"ERROR: (gcloud.{command}) {text}", file=sys.stderr)
    sys.exit(code)


def gcloud(arguments):
    with open(ROOT / "calls.jsonl", "a") as file:
        file.write(json.dumps(["gcloud", *arguments]) + "\n")
    words = [word for word in arguments if not word.startswith("--")]
    options = dict(word[2:].partition("=")[::2] for word in arguments if word.startswith("--"))
    if words[0] == "storage":
        return storage(words[1], words[2:])
    kind, verb, *rest = words[2:]
    globals()[f"{kind}_{verb}".replace("-", "_")](rest, options)


def storage(verb, paths):
    source = BUCKET / paths[0].removeprefix("gs://")
    if not source.exists():
        what = "One or more URLs matched no objects." if verb == "ls" else "Did not find existing container"
        fail(f"storage.{verb}", what)
    if verb == "rsync":
        assert os.path.isdir(paths[1])
        shutil.copytree(source, paths[1], dirs_exist_ok=True)


def not_found(command, name):
    print("- '@type': type.googleapis.com/google.rpc.ResourceInfo", file=sys.stderr)
    fail(command, f"NOT_FOUND: Resource 'projects/p/locations/z/nodes/{name}' was not found.")


def new_node():
    VM.mkdir()
    cloud["node"] = "READY"


def tpu_vm_create(rest, options):
    del rest, options
    if cloud["create_error"]:
        fail("compute.tpus.tpu-vm.create", cloud["create_error"])
    assert cloud["node"] is None
    new_node()
    if cloud.once("interrupt_create"):
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(30)


def tpu_vm_describe(rest, options):
    assert options["format"] == "json"
    if cloud["unanswered"]:
        cloud["unanswered"] -= 1
        fail("compute.tpus.tpu-vm.describe", "There was a problem refreshing your current auth tokens.")
    if cloud["node"] is None:
        not_found("compute.tpus.tpu-vm.describe", rest[0])
    print(json.dumps({"state": cloud["node"], "networkEndpoints": [{"port": 8470}] * cloud["hosts"]}))


def tpu_vm_delete(rest, options):
    del options
    if cloud["node"] is None:
        not_found("compute.tpus.tpu-vm.delete", rest[0])
    if cloud["delete_errors"]:
        cloud["delete_errors"] -= 1
        fail("compute.tpus.tpu-vm.delete", "HttpError 409: an operation is in progress")
    destroy("node", None)


def destroy(name, state):
    pid = VM / "gantry_job/pid"
    if pid.exists():
        try:
            os.killpg(int(pid.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            pass
    shutil.rmtree(VM, ignore_errors=True)
    cloud[name] = state


def queued_resources_create(rest, options):
    assert options["node-id"] == rest[0] and options["runtime-version"]
    assert cloud["queue"] is None
    cloud["queue"] = "WAITING_FOR_RESOURCES"


def queued_resources_describe(rest, options):
    assert options["format"] == "json"
    if cloud["queue"] is None:
        not_found("compute.tpus.queued-resources.describe", rest[0])
    answer = {"state": {"state": cloud["queue"]}}
    if cloud["queue"] == "FAILED":
        answer["state"]["failedData"] = {"error": {"message": "the request has expired"}}
    print(json.dumps(answer))
    if cloud["queue"] not in ("ACTIVE", "SUSPENDED", "FAILED"):  # the next one will see it further on
        states = cloud["queue_states"]
        cloud["queue"] = states.pop(0) if states else "ACTIVE"
        if cloud["queue"] == "ACTIVE":
            new_node()


def queued_resources_delete(rest, options):
    assert "force" in options or cloud["queue"] in ("SUSPENDED", "FAILED")
    if cloud["queue"] is None:
        not_found("compute.tpus.queued-resources.delete", rest[0])
    cloud["queue"] = None
    destroy("node", None)


def check_reachable(verb):
    if cloud["node"] is None:
        not_found(f"compute.tpus.tpu-vm.{verb}", "it")
    if cloud["node"] != "READY":
        fail(f"compute.tpus.tpu-vm.{verb}", f"This TPU has terminal state {cloud['node']!r}.")


def tpu_vm_scp(rest, options):
    del options
    check_reachable("scp")
    assert rest[-1].endswith(":")
    for path in rest[:-1]:
        shutil.copy(path, VM)


def tpu_vm_ssh(rest, options):
    del rest
    check_reachable("ssh")
    print("SSH: Attempting to connect to worker 0...", file=sys.stderr)
    environment = os.environ | {"HOME": str(VM), "PATH": f"{ROOT / 'vm_bin'}:{os.environ['PATH']}"}
    remote = subprocess.Popen(
        ["bash", "-c", options["command"]],
        cwd=VM,
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    lines = 0
    for line in remote.stdout:
        sys.stdout.buffer.write(line)
        sys.stdout.flush()
        lines += 1
        if " follow " in options["command"]:
            mishap(lines, remote)
    sys.exit(remote.wait())


def mishap(lines, remote):
    for name, number in (("interrupt_at", signal.SIGINT), ("kill_at", signal.SIGKILL)):
        if lines == cloud[name]:
            cloud.once(name)
            os.kill(os.getppid(), number)
    if lines == cloud["release_at"]:
        cloud["runs_forever"] = False
    if lines == cloud["terminate_at"]:
        os.killpg(int((VM / "gantry_job/pid").read_text()), signal.SIGTERM)
        cloud.once("terminate_at")
    for name in ("drop_at", "preempt_at"):
        if lines == cloud[name]:
            os.killpg(remote.pid, signal.SIGKILL)
            if name == "preempt_at":
                destroy("node", "PREEMPTED" if cloud["queue"] is None else None)
                if cloud["queue"]:
                    cloud["queue"] = "SUSPENDED"
            else:
                cloud["unanswered"] = 2
            cloud.once(name)
            fail("compute.tpus.tpu-vm.ssh", "[/usr/bin/ssh] exited with return code [255].", 255)


def python(arguments):
    if arguments[0] == "-c":
        return
    module, rest = arguments[1], arguments[2:]
    if module == "venv":
        target = pathlib.Path(rest[-1]) / "bin/python"
        target.parent.mkdir(parents=True)
        shutil.copy(ROOT / "vm_bin/python3.13", target)
        target.chmod(target.stat().st_mode | stat.S_IEXEC)
    elif module == "pip":
        with open(ROOT / "installed.txt", "a") as file:
            file.write(" ".join(rest) + "\n")
    elif module == "engine.train":
        train(rest)


def train(flags):
    """Prints a line a checkpoint; one that is told to stop saves and exits with 42, as the real one."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    assert os.environ["TPU_NAME"] == "local"
    workdir = next(flag for flag in flags if flag.startswith("--workdir=")).split("=", 1)[1]
    run = BUCKET / workdir.removeprefix("gs://")
    run.mkdir(parents=True, exist_ok=True)
    (run / "flags.json").write_text(json.dumps(flags))
    checkpoint = run / "checkpoint"
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(first + 1, LINES + 1):
        checkpoint.write_text(str(step))
        print(f"step {step}: loss", flush=True)
        while not stopped and step in (Cloud()["preempt_at"], Cloud()["terminate_at"]):
            time.sleep(0.02)  # does not run ahead of what is to happen to it
    end = time.monotonic() + 60  # should a test leave it behind
    while Cloud()["runs_forever"] and not stopped and time.monotonic() < end:
        time.sleep(0.02)
    if stopped:
        (run / "saved").write_text("")
        sys.exit(42)
    if cloud["training_code"] == 0:
        (run / "DONE").write_text("{}")
    sys.exit(cloud["training_code"])


if __name__ == "__main__":
    {"gcloud": gcloud, "python": python}[sys.argv[1]](sys.argv[2:])
