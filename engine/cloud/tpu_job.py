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


_ANOTHER_TRAINING = 4  # of tpu_vm.sh


_RECONNECTIONS = 10  # in a row without any new output


_DELETIONS = 3


@dataclasses.dataclass(kw_only=True)
class TpuJob:
    """One training on one TPU VM.

    Args:
      vm: where; it is created if it does not exist, and deleted in the end.
      training_flags: those of engine.train, paths relative to the checkout.
      workdir: run directory, "gs://...".
      output: local folder that the run is fetched into.
      checkout: the git repository that is sent.
      keep_vm: leaves the VM there in the end.
      max_restarts: after how many preemptions it gives up.
      poll_sec: between two looks at a VM that is on its way.
      shell: what runs the commands.
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

    def __post_init__(self):
        self.workdir = self.workdir.rstrip("/")
        self._restarts = 0
        self._owned = False  # there may be a VM, and it is this job's
        self._sent = False  # the order to train, to the VM that is there now
        self._started = False  # the training there
        self._seen_lines = 0  # of its output

    def run(self) -> int:
        """Trains to the end and fetches the run.

        Returns:
          The exit code of the training: 0, 2, 3, or 1 for anything else; 42 after Ctrl-C.

        Raises:
          ConfigurationError: the VM that exists is not one for this job; it is left alone.
          GcloudError: gcloud failed; what could be deleted was.
          engine.errors.Interrupted: preempted too often.
        """
        code = FAILED
        try:
            if self._is_complete():
                _say(f"the run is complete; to prolong it, first: gcloud storage rm {self.workdir}/DONE")
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
            _say(f"interrupted: the same command goes on; what there is of the run is in {self.workdir}")
        else:
            self._fetch(must_exist=code == DONE)
        return code if released or code != DONE else FAILED

    def _is_complete(self) -> bool:
        answer = self.shell.run(["gcloud", "storage", "ls", f"{self.workdir}/DONE"])
        return not answer.says_absent and answer.checked().code == 0

    def _train(self) -> int:
        failures = 0
        while True:
            self._get_vm()
            seen = self._seen_lines
            answer = Answer(0) if self._started else self._start()
            if not answer.is_gclouds_own:
                self._started = True
                answer = self._follow()
            if answer.is_gclouds_own:  # the VM is gone, or only the connection: its state will tell
                failures = 0 if self._seen_lines > seen else failures + 1
                if failures > _RECONNECTIONS:
                    raise GcloudError(f"{self.vm.name} does not answer: {answer.last_error}")
                _say(f"no connection to {self.vm.name}: {answer.last_error}")
            elif answer.code == INTERRUPTED:  # not by us: a VM warns of its end with SIGTERM
                self._count_restart("was told to stop")
                self._started, self._seen_lines = False, 0
            else:
                return answer.code if answer.code in (DONE, BAD_INPUT, DIVERGED) else FAILED
            time.sleep(self.poll_sec)

    def _get_vm(self) -> None:
        """Waits until the VM is ready; creates it, or anew, where it is not there."""
        word = None
        while True:
            before = word
            state, word, node = self._observe()
            if word != before:
                _say(f"{self.vm.name} {state.value} ({word})")
            if state is State.READY:
                if misfit := self.vm.misfit(node):
                    raise ConfigurationError(misfit)
                self._owned = True
                return
            if state is State.BROKEN:
                delete = shlex.join(self.vm.delete_command())
                raise GcloudError(
                    f"{self.vm.name} {state.value}, its state is {word}; to delete it: {delete}"
                )
            if state is State.ABSENT and self._started:
                raise GcloudError(f"{self.vm.name} was deleted by somebody; the same command goes on")
            if state is State.LOST:
                self._owned = True
                self._count_restart(state.value)
                answer = self.shell.run(self.vm.delete_command())
                if not answer.says_absent:
                    answer.checked()
                self._sent, self._started, self._seen_lines = False, False, 0
            elif state is State.ABSENT:
                self._owned = True
                self.shell.run(self.vm.create_command(), on_line=print).checked()
            else:
                self._owned |= state is State.COMING
                time.sleep(self.poll_sec)

    def _observe(self) -> tuple[State, str, dict]:
        """What became of the VM. While it trains, a while without an answer ends nothing."""
        for _ in range(_RECONNECTIONS if self._started else 0):
            try:
                return self.vm.observe(self.shell)
            except GcloudError as error:
                _say(f"asking again: {error}")
                time.sleep(self.poll_sec)
        return self.vm.observe(self.shell)

    def _count_restart(self, why: str) -> None:
        if self._restarts == self.max_restarts:
            raise RunInterruptedError(
                f"{self.vm.name} {why} more often than --max_restarts allows; the same command goes on"
            )
        self._restarts += 1

    def _start(self) -> Answer:
        """Sends the code and starts the training, or finds that it runs."""
        archive = self.checkout / "build" / self.vm.name / "gantry.tar.gz"
        commit = _git(self.checkout, "stash", "create") or "HEAD"  # with what is not committed, if anything
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
        if answer.code and not answer.is_gclouds_own:
            raise GcloudError(f"{self.vm.name} could not be set up: {answer.last_error}")
        return answer

    def _follow(self) -> Answer:
        """Shows the training's output from where it was left until it ends, or the connection does."""
        before = self._seen_lines

        def show(line: str) -> None:
            number, _, text = line.partition(":")
            # gcloud itself connects again and repeats the command: lines come again.
            if number.isdigit() and before + int(number) > self._seen_lines:
                self._seen_lines = before + int(number)
                print(text, flush=True)

        command = self.vm.ssh_command("bash", "tpu_vm.sh", "follow", str(before + 1))
        return self.shell.run(command, on_line=show)

    def _stop(self) -> None:
        """Lets the training save, unless there is another Ctrl-C."""
        if not self._sent:
            return
        _say("stopping: the training saves first; again to not wait for it")
        try:
            answer = self.shell.run(self.vm.ssh_command("bash", "tpu_vm.sh", "stop"))
            if answer.code == 0 and self._started:
                self._follow()
        except KeyboardInterrupt:
            _say("not waiting")

    def _release(self) -> bool:
        """Deletes the VM, or says that it is there; whether that went as wanted."""
        if not self._owned:
            return True
        left = (
            f"{self.vm.name} is left, and paid for. Delete it with\n  {shlex.join(self.vm.delete_command())}"
        )
        if self.keep_vm:
            _say(left)
            return True
        try:
            for attempt in range(_DELETIONS):  # it is refused while a creation is under way
                if attempt:
                    time.sleep(self.poll_sec)
                answer = self.shell.run(self.vm.delete_command())
                if answer.code == 0 or answer.says_absent:
                    _say(f"{self.vm.name} is deleted")
                    return True
        except KeyboardInterrupt:
            _say(f"it is not certain that it was deleted: {left}")
            raise
        _say(f"it could not be deleted ({answer.last_error}): {left}")
        return False

    def _fetch(self, *, must_exist: bool) -> None:
        self.shell.run(["mkdir", "-p", self.output]).checked()
        answer = self.shell.run(["gcloud", "storage", "rsync", "--recursive", self.workdir, self.output])
        if answer.code == 0:
            _say(f"the run is in {self.output}")
        elif must_exist:
            raise GcloudError(f"the run was not fetched from {self.workdir}: {answer.last_error}")
        else:  # it may have failed before there was a run
            _say(f"nothing fetched from {self.workdir}: {answer.last_error}")


def _say(text: str) -> None:  # a comment among commands, so that a dry run can be pasted into a shell
    print(f"# {text}".replace("\n", "\n# "), flush=True)


def _git(checkout: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(checkout), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()
