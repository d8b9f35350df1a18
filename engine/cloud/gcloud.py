"""The gcloud commands for one TPU VM, and what their answers mean."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO

UNREACHABLE = 255  # exit code of ssh, and of gcloud around it, without a connection
_KILL_AFTER_SEC = 10


class GcloudError(RuntimeError):
    """A gcloud command failed, or the TPU VM is in a state that cannot be used. One line."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """The result of a command.

    Attributes:
      code: its exit code.
      output: what it wrote to stdout.
      errors: what it wrote to stderr.
    """

    code: int
    output: str = ""
    errors: str = ""

    @property
    def last_error(self) -> str:
        """The last line that starts with "ERROR:", as gcloud's errors do; otherwise the last line."""
        lines = [line.strip() for line in (self.output + "\n" + self.errors).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")]
        return (errors or lines or [f"exit code {self.code}"])[-1]

    @property
    def failed_in_gcloud(self) -> bool:
        """Whether gcloud or the connection failed, rather than the command that ran on the VM."""
        return self.code == UNREACHABLE or (self.code != 0 and "ERROR: (gcloud." in self.errors)

    @property
    def is_not_found(self) -> bool:
        """Whether it failed because the resource or object does not exist."""
        return self.code != 0 and bool(re.search(r"NOT_FOUND|was not found|matched no objects", self.errors))

    def checked(self) -> Answer:
        """Returns itself.

        Raises:
          GcloudError: the command failed.
        """
        if self.code:
            raise GcloudError(self.last_error)
        return self


class Shell:
    """Runs commands and prints each one before it runs; a command that is repeated is printed once.

    Each runs in a session of its own, so that Ctrl-C reaches only this program, which then ends the command.
    """

    def __init__(self) -> None:
        self._printed: list[str] | None = None

    def run(self, command: Sequence[str], *, on_line: Callable[[str], None] | None = None) -> Answer:
        """Runs a command without input and waits for it.

        Args:
          command: program and arguments.
          on_line: called with each line of its stdout, without the newline, as soon as it is written. Its
            stderr is shown too. Without `on_line` nothing is shown.
        """
        if command != self._printed:
            print(f"$ {shlex.join(command)}", flush=True)
        self._printed = list(command)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert process.stdout and process.stderr
        output: list[str] = []
        errors: list[str] = []
        reader = threading.Thread(
            target=_drain, args=(process.stderr, errors, on_line is not None), daemon=True
        )
        reader.start()
        try:
            for line in process.stdout:
                output.append(line)
                if on_line:
                    on_line(line.rstrip("\n"))
            code = process.wait()
            reader.join()
        except BaseException:
            _end(process)
            raise
        return Answer(code, "".join(output), "".join(errors))


class DryRun:
    """Prints commands without running them. Answers as if no VM existed before and every command worked."""

    def __init__(self) -> None:
        self._exists = False

    def run(self, command: Sequence[str], *, on_line: Callable[[str], None] | None = None) -> Answer:
        """Prints a command and returns an invented answer; never calls `on_line`."""
        print(shlex.join(command), flush=True)
        if "create" in command:
            self._exists = True
        if command[:3] == ["gcloud", "storage", "ls"] or ("describe" in command and not self._exists):
            return Answer(1, errors="ERROR: (gcloud) NOT_FOUND")
        return Answer(0, json.dumps({"state": {"state": "ACTIVE"} if _QUEUED in command else "READY"}))


class State(enum.Enum):
    """The state of a TPU VM, as far as a job has to know it. The values are for status lines."""

    ABSENT = "does not exist"
    COMING = "is being created"
    READY = "is ready"
    LOST = "was preempted"
    GOING = "is being deleted"
    BROKEN = "cannot be used"


# https://cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.nodes, State
_NODE_STATES = {
    **dict.fromkeys(
        ("CREATING", "STARTING", "RESTARTING", "REIMAGING", "REPAIRING", "UNHIDING"), State.COMING
    ),
    "READY": State.READY,
    **dict.fromkeys(("PREEMPTED", "TERMINATED"), State.LOST),
    **dict.fromkeys(("STOPPING", "DELETING", "HIDING"), State.GOING),
}
# The same for queuedResources. A preempted one becomes suspended and its VM is deleted.
_QUEUE_STATES = {
    **dict.fromkeys(("CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING"), State.COMING),
    "SUSPENDED": State.LOST,
    **dict.fromkeys(("SUSPENDING", "DELETING"), State.GOING),
}
_QUEUED = "queued-resources"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuVm:
    """A TPU VM and the gcloud commands for it.

    Attributes:
      name: of the VM.
      zone: such as "us-west4-a".
      accelerator_type: such as "v5litepod-8".
      runtime_version: the VM's image, such as "v2-alpha-tpuv5-lite".
      project: Google Cloud project; None is gcloud's default.
      spot: cheaper, but may be preempted.
      queued: request it as a queued resource (of the same name), which waits until a TPU is free.
      valid_until_duration: how long a queued request waits, such as "6h"; None is for ever.
      create_flags: further flags for gcloud's `create`.
    """

    name: str
    zone: str
    accelerator_type: str
    runtime_version: str
    project: str | None = None
    spot: bool = False
    queued: bool = False
    valid_until_duration: str | None = None
    create_flags: tuple[str, ...] = ()

    def create_command(self) -> list[str]:
        """Creates the VM, or requests it as a queued resource."""
        command = self._command(_QUEUED if self.queued else "tpu-vm", "create", self.name)
        command += [f"--accelerator-type={self.accelerator_type}"]
        if self.queued:
            command += [f"--node-id={self.name}", f"--runtime-version={self.runtime_version}"]
            if self.valid_until_duration:
                command += [f"--valid-until-duration={self.valid_until_duration}"]
        else:
            command += [f"--version={self.runtime_version}"]
        return [*command, *(["--spot"] if self.spot else []), *self.create_flags]

    def delete_command(self) -> list[str]:
        """Deletes the VM, and the queued resource if there is one."""
        if self.queued:  # --force deletes its VM first
            return [*self._command(_QUEUED, "delete", self.name), "--force"]
        return self._command("tpu-vm", "delete", self.name)

    def copy_command(self, *paths: str) -> list[str]:
        """Copies files to the VM's home folder."""
        return self._command("tpu-vm", "scp", *paths, f"{self.name}:")

    def ssh_command(self, *words: str) -> list[str]:
        """Runs a command on the VM."""
        return [*self._command("tpu-vm", "ssh", self.name), f"--command={shlex.join(words)}"]

    def observe(self, shell: Shell | DryRun) -> tuple[State, str, dict]:
        """Asks for the state of the VM.

        Args:
          shell: runs the commands.

        Returns:
          The state; Google's name of it; gcloud's description of the VM, which is empty if there is no VM.

        Raises:
          GcloudError: gcloud does not say.
        """
        if self.queued:
            described = self._describe(shell, _QUEUED)
            if described is None:
                return State.ABSENT, "NOT_FOUND", {}
            word = described["state"]["state"]
            if word != "ACTIVE":
                why = described["state"].get("failedData", {}).get("error", {}).get("message", "")
                return _QUEUE_STATES.get(word, State.BROKEN), f"{word} {why}".strip(), {}
        node = self._describe(shell, "tpu-vm")
        if node is None:  # an active request without a VM is about to be suspended
            return (State.GOING if self.queued else State.ABSENT), "NOT_FOUND", {}
        return _NODE_STATES.get(node["state"], State.BROKEN), node["state"], node

    def mismatch(self, node: dict) -> str | None:
        """How an existing VM differs from this one, as one line; None if it does not.

        Args:
          node: gcloud's description of the VM.
        """
        kind = node.get("acceleratorType", self.accelerator_type)
        hosts = len(node.get("networkEndpoints", [])) or 1
        if kind == self.accelerator_type and hosts == 1:
            return None
        return (
            f"--name={self.name}: exists with {kind} and {hosts} host(s), but --accelerator_type="
            f"{self.accelerator_type} has one host; choose another name or delete the VM"
        )

    def _describe(self, shell: Shell | DryRun, kind: str) -> dict | None:
        answer = shell.run([*self._command(kind, "describe", self.name), "--format=json"])
        return None if answer.is_not_found else json.loads(answer.checked().output)

    def _command(self, *words: str) -> list[str]:
        project = [f"--project={self.project}"] if self.project else []
        return ["gcloud", "compute", "tpus", *words, f"--zone={self.zone}", *project, "--quiet"]


def _drain(stream: IO[str], lines: list[str], show: bool) -> None:
    for line in stream:
        lines.append(line)
        if show:
            print(line, end="", file=sys.stderr, flush=True)


def _end(process: subprocess.Popen) -> None:
    """Ends a command and its child processes."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_KILL_AFTER_SEC)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
