"""The gcloud commands around one TPU VM: what they are, how they are run, what their answers mean."""

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

UNREACHABLE = 255  # what ssh, and gcloud around it, exit with when there is no connection (any more)
_KILL_AFTER_SEC = 10


class GcloudError(RuntimeError):
    """gcloud refused, or the cloud is in a state that cannot be gone on from. One line."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """How a command ended: its exit code and what it wrote."""

    code: int
    output: str = ""
    errors: str = ""

    @property
    def last_error(self) -> str:
        """gcloud's own last word: its last line that begins with ERROR, else the last line of all."""
        lines = [line.strip() for line in (self.output + "\n" + self.errors).splitlines() if line.strip()]
        own = [line for line in lines if line.startswith("ERROR:")]
        return (own or lines or [f"exit code {self.code}"])[-1]

    @property
    def is_gclouds_own(self) -> bool:
        """Whether it failed in gcloud, or in the connection, rather than in what ran on the VM."""
        return self.code == UNREACHABLE or (self.code != 0 and "ERROR: (gcloud." in self.errors)

    @property
    def says_absent(self) -> bool:
        return self.code != 0 and bool(re.search(r"NOT_FOUND|was not found|matched no objects", self.errors))

    def checked(self) -> Answer:
        """Itself; raises GcloudError if the command failed."""
        if self.code:
            raise GcloudError(self.last_error)
        return self


class Shell:
    """Runs commands, each printed first (once, where it is repeated to wait for something).

    They run in sessions of their own: Ctrl-C reaches this program only, which then ends them.
    """

    def __init__(self):
        self._printed: list[str] | None = None

    def run(self, command: Sequence[str], *, on_line: Callable[[str], None] | None = None) -> Answer:
        """Runs a command to its end, without any input.

        Args:
          command: program and arguments.
          on_line: called with each line of its output as it comes, without the newline; what it writes to
            stderr is then shown, too. Without it the command is quiet.
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
        output, errors = [], []
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
    """Prints commands and runs none; answers as a cloud in which nothing was there and all goes well."""

    def __init__(self):
        self._exists = False

    def run(self, command: Sequence[str], *, on_line: Callable[[str], None] | None = None) -> Answer:
        print(shlex.join(command), flush=True)
        if "create" in command:
            self._exists = True
        if command[:3] == ["gcloud", "storage", "ls"] or ("describe" in command and not self._exists):
            return Answer(1, errors="ERROR: (gcloud) NOT_FOUND")
        return Answer(0, json.dumps({"state": {"state": "ACTIVE"} if _QUEUED in command else "READY"}))


class State(enum.Enum):
    """What can be done with a TPU VM."""

    ABSENT = "does not exist"
    COMING = "is on its way"
    READY = "is ready"
    LOST = "was preempted"
    GOING = "is being taken away"
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
# The same for queuedResources. A preempted one is suspended, its VM deleted.
_QUEUE_STATES = {
    **dict.fromkeys(("CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING"), State.COMING),
    "SUSPENDED": State.LOST,
    **dict.fromkeys(("SUSPENDING", "DELETING"), State.GOING),
}
_QUEUED = "queued-resources"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuVm:
    """A TPU VM by name, and the commands about it.

    Args:
      name, zone, project: where it is; gcloud's own default project if None.
      accelerator_type, runtime_version: "v5litepod-8", "v2-alpha-tpuv5-lite".
      spot: cheaper, and may be preempted.
      queued: requested as a queued resource (of the same name), which waits until there is one.
      valid_until_duration: how long a queued request waits, such as "6h"; None for ever.
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
        if self.queued:  # --force: its VM first
            return [*self._command(_QUEUED, "delete", self.name), "--force"]
        return self._command("tpu-vm", "delete", self.name)

    def copy_command(self, *paths: str) -> list[str]:
        """Copies files into the home folder."""
        return self._command("tpu-vm", "scp", *paths, f"{self.name}:")

    def ssh_command(self, *words: str) -> list[str]:
        return [*self._command("tpu-vm", "ssh", self.name), f"--command={shlex.join(words)}"]

    def observe(self, shell: Shell | DryRun) -> tuple[State, str, dict]:
        """Asks what became of it.

        Returns:
          The state; Google's own word for it; the description of the VM (empty if there is none yet).

        Raises:
          GcloudError: there is no telling.
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
        if node is None:  # an active request whose VM is gone is about to be suspended
            return (State.GOING if self.queued else State.ABSENT), "NOT_FOUND", {}
        return _NODE_STATES.get(node["state"], State.BROKEN), node["state"], node

    def misfit(self, node: dict) -> str | None:
        """Why a VM that exists is not the one asked for, as one line; None if it is."""
        kind = node.get("acceleratorType", self.accelerator_type)
        hosts = len(node.get("networkEndpoints", [])) or 1
        if kind == self.accelerator_type and hosts == 1:
            return None
        return (
            f"--name={self.name}: exists, as a {kind} of {hosts} host(s) where "
            f"--accelerator_type={self.accelerator_type} has one; choose another name or delete it"
        )

    def _describe(self, shell: Shell | DryRun, kind: str) -> dict | None:
        answer = shell.run([*self._command(kind, "describe", self.name), "--format=json"])
        return None if answer.says_absent else json.loads(answer.checked().output)

    def _command(self, *words: str) -> list[str]:
        project = [f"--project={self.project}"] if self.project else []
        return ["gcloud", "compute", "tpus", *words, f"--zone={self.zone}", *project, "--quiet"]


def _drain(stream, lines: list[str], show: bool) -> None:
    for line in stream:
        lines.append(line)
        if show:
            print(line, end="", file=sys.stderr, flush=True)


def _end(process: subprocess.Popen) -> None:
    """Ends a command and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_KILL_AFTER_SEC)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
