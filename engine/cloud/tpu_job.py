"""One training on a Cloud TPU VM, from creating the VM to deleting it."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from engine.cli.program import BAD_INPUT, DIVERGED, DONE, INTERRUPTED
from engine.cloud.gcloud import Answer, DryRun, GcloudError, Shell, State, TpuVm
from engine.errors import ConfigurationError, RunInterruptedError

FAILED = 1
_ANOTHER_TRAINING = 4  # exit code of tpu_vm.sh
_RECONNECTIONS = 10  # in a row, without new output
_DELETIONS = 3


@dataclasses.dataclass(kw_only=True)
class TpuJob:
    """One training on one TPU VM.

    Attributes:
      vm: is created if it does not exist, and deleted at the end.
      training_flags: flags of engine.train, with paths relative to the checkout.
      workdir: run directory, "gs://...".
      output: local folder to copy the run to.
      checkout: the git repository to copy to the VM.
      keep_vm: do not delete the VM at the end.
      max_restarts: the job gives up after this many preemptions.
      poll_sec: seconds between two requests for the VM's state while it is being created.
      shell: runs the commands.
    """

    vm: TpuVm
    training_flags: Sequence[str]
    workdir: str
    output: str
    checkout: Path
    keep_vm: bool = False
    max_restarts: int = 20
    poll_sec: float = 15.0
    shell: Shell | DryRun = dataclasses.field(default_factory=Shell)

    def __post_init__(self) -> None:
        self.workdir = self.workdir.rstrip("/")
        self._restarts = 0
        self._owned = False  # a VM may exist, and it is this job's
        self._sent = False  # the files were copied to the current VM, so a training may run there
        self._started = False  # a training runs on the current VM
        self._seen_lines = 0  # of the training's output

    def run(self) -> int:
        """Trains to the end and copies the run to the local folder.

        Returns:
          The exit code of the training: 0, 2, 3, or 1 for anything else; 42 after Ctrl-C.

        Raises:
          ConfigurationError: the existing VM does not match this job; it is not changed.
          GcloudError: gcloud failed; the VM was deleted if that was possible.
          RunInterruptedError: the VM was preempted too often.
        """
        code = FAILED
        try:
            if self._is_complete():
                say(f"the run is complete; to extend it, first run gcloud storage rm {self.workdir}/DONE")
                self._owned = self.vm.observe(self.shell)[0] is not State.ABSENT
                code = DONE
            else:
                code = self._train()
        except KeyboardInterrupt:
            self._stop()
            code = INTERRUPTED
        finally:
            released = self._release()
        if code == INTERRUPTED:
            say(f"interrupted; the same command continues the run, which is in {self.workdir}")
        else:
            self._fetch(must_exist=code == DONE)
        return code if released or code != DONE else FAILED

    def _is_complete(self) -> bool:
        answer = self.shell.run(["gcloud", "storage", "ls", f"{self.workdir}/DONE"])
        return not answer.is_not_found and answer.checked().code == 0

    def _train(self) -> int:
        failures = 0
        while True:
            self._get_vm()
            seen = self._seen_lines
            answer = Answer(0) if self._started else self._start()
            if not answer.failed_in_gcloud:
                self._started = True
                answer = self._follow()
            if answer.failed_in_gcloud:  # the VM or the connection is lost; _get_vm finds out which
                failures = 0 if self._seen_lines > seen else failures + 1
                if failures > _RECONNECTIONS:
                    raise GcloudError(f"{self.vm.name} does not answer: {answer.last_error}")
                say(f"no connection to {self.vm.name}: {answer.last_error}")
            elif answer.code == INTERRUPTED:  # not by this program: a VM that shuts down sends SIGTERM
                self._count_restart("was shut down")
                self._started, self._seen_lines = False, 0
            else:
                return answer.code if answer.code in (DONE, BAD_INPUT, DIVERGED) else FAILED
            time.sleep(self.poll_sec)

    def _get_vm(self) -> None:
        """Waits until the VM is ready. Creates it if it does not exist or was preempted."""
        word = None
        while True:
            before = word
            state, word, node = self._observe()
            if word != before:
                say(f"{self.vm.name} {state.value} ({word})")
            if state is State.READY:
                if mismatch := self.vm.mismatch(node):
                    raise ConfigurationError(mismatch)
                self._owned = True
                return
            if state is State.BROKEN:
                delete = shlex.join(self.vm.delete_command())
                raise GcloudError(
                    f"{self.vm.name} {state.value}: its state is {word}; delete it with {delete}"
                )
            if state is State.ABSENT and self._started:
                raise GcloudError(
                    f"{self.vm.name}: was deleted by somebody else; the same command continues the run"
                )
            if state is State.LOST:
                self._owned = True
                self._count_restart(state.value)
                answer = self.shell.run(self.vm.delete_command())
                if not answer.is_not_found:
                    answer.checked()
                self._sent, self._started, self._seen_lines = False, False, 0
            elif state is State.ABSENT:
                self._owned = True
                self.shell.run(self.vm.create_command(), on_line=print).checked()
            else:
                self._owned |= state is State.COMING
                time.sleep(self.poll_sec)

    def _observe(self) -> tuple[State, str, dict]:
        """The state of the VM. During a training, a few requests may fail."""
        for _ in range(_RECONNECTIONS if self._started else 0):
            try:
                return self.vm.observe(self.shell)
            except GcloudError as error:
                say(f"asking again: {error}")
                time.sleep(self.poll_sec)
        return self.vm.observe(self.shell)

    def _count_restart(self, why: str) -> None:
        if self._restarts == self.max_restarts:
            raise RunInterruptedError(
                f"{self.vm.name} {why} more often than --max_restarts allows; the same command continues the "
                "run"
            )
        self._restarts += 1

    def _start(self) -> Answer:
        """Copies the code to the VM and starts the training, unless it runs already."""
        archive = self.checkout / "build" / self.vm.name / "gantry.tar.gz"
        commit = git(self.checkout, "stash", "create") or "HEAD"  # includes uncommitted changes, if any
        for command in (
            ["mkdir", "-p", str(archive.parent)],
            ["git", "-C", str(self.checkout), "archive", "--format=tar.gz", f"--output={archive}", commit],
        ):
            self.shell.run(command).checked()
        script = self.checkout / "engine" / "cloud" / "tpu_vm.sh"
        answer = self.shell.run(self.vm.copy_command(str(archive), str(script)))
        if answer.code == 0:
            self._sent = True
            command = self.vm.ssh_command("bash", "tpu_vm.sh", "start", *self.training_flags)
            answer = self.shell.run(command, on_line=print)
        if answer.code == _ANOTHER_TRAINING:
            self._owned = False
            raise ConfigurationError(f"--name={self.vm.name}: {answer.last_error}; choose another")
        if answer.code and not answer.failed_in_gcloud:
            raise GcloudError(f"{self.vm.name}: could not be set up: {answer.last_error}")
        return answer

    def _follow(self) -> Answer:
        """Prints the training's new output until the training or the connection ends."""
        before = self._seen_lines

        def show(line: str) -> None:
            number, _, text = line.partition(":")
            # gcloud itself reconnects and repeats the command, so lines may come twice.
            if number.isdigit() and before + int(number) > self._seen_lines:
                self._seen_lines = before + int(number)
                print(f"{text}\n", end="", flush=True)  # in one write, which Ctrl-C does not cut in two

        command = self.vm.ssh_command("bash", "tpu_vm.sh", "follow", str(before + 1))
        return self.shell.run(command, on_line=show)

    def _stop(self) -> None:
        """Makes the training save and stop; another Ctrl-C ends the wait for it."""
        if not self._sent:
            return
        say("The training saves and stops. Press Ctrl-C again to stop without waiting for it.")
        try:
            answer = self.shell.run(self.vm.ssh_command("bash", "tpu_vm.sh", "stop"))
            if answer.code == 0 and self._started:
                self._follow()
        except KeyboardInterrupt:
            say("not waiting for the training")

    def _release(self) -> bool:
        """Deletes the VM unless `keep_vm` is set. Returns False if that failed."""
        if not self._owned:
            return True
        delete = shlex.join(self.vm.delete_command())
        left = f"{self.vm.name} still exists and costs money. Delete it with\n  {delete}"
        if self.keep_vm:
            say(left)
            return True
        try:
            for attempt in range(_DELETIONS):  # fails while the VM is being created
                if attempt:
                    time.sleep(self.poll_sec)
                answer = self.shell.run(self.vm.delete_command())
                if answer.code == 0 or answer.is_not_found:
                    say(f"{self.vm.name} is deleted")
                    return True
        except KeyboardInterrupt:
            say(f"not certain whether it was deleted: {left}")
            raise
        say(f"could not be deleted ({answer.last_error}): {left}")
        return False

    def _fetch(self, *, must_exist: bool) -> None:
        self.shell.run(["mkdir", "-p", self.output]).checked()
        answer = self.shell.run(["gcloud", "storage", "rsync", "--recursive", self.workdir, self.output])
        if answer.code == 0:
            say(f"the run is in {self.output}")
        elif must_exist:
            raise GcloudError(f"{self.workdir}: could not be copied: {answer.last_error}")
        else:  # the training may have failed before it wrote anything
            say(f"nothing copied from {self.workdir}: {answer.last_error}")


def say(text: str) -> None:
    """Prints a status line as a shell comment, so that the output can be pasted into a shell."""
    print(f"# {text}".replace("\n", "\n# "), flush=True)


def git(checkout: Path, *words: str) -> str:
    """Runs git in a checkout and returns its output; empty if git fails."""
    done = subprocess.run(["git", "-C", str(checkout), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()
