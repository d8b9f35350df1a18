#!/usr/bin/env bash
# Runs on the TPU VM. engine/tpu_job.py copies this file and gantry.tar.gz to the VM's home folder and
# calls these commands, any number of times:
#
#   bash tpu_vm.sh start FLAGS    installs Gantry and trains in the background; does nothing if this
#                                 training runs already; exit code 4 if another training runs
#   bash tpu_vm.sh follow LINE    prints the training's output from line LINE on, each line with its
#                                 number (counted from there), until it ends; exits with its exit code
#   bash tpu_vm.sh stop           makes the training save and end, as Ctrl-C does; ends a `start` that
#                                 is still installing
#
# The training continues when the connection breaks; another `follow` then prints the rest.
set -euo pipefail
cd "$HOME"
readonly JOB=gantry_job

start() {
  mkdir -p $JOB
  exec 9>>$JOB/lock  # the training inherits the lock, so it is free only if no training runs
  if ! flock --nonblock 9; then
    if [ "$*" = "$(cat $JOB/flags)" ]; then
      echo "this training runs here already; following it"
      return
    fi
    echo "another training runs on this TPU VM: $(cat $JOB/flags)" >&2
    return 4
  fi
  echo $$ > $JOB/start_pid
  rm -rf gantry $JOB/exit_code $JOB/log $JOB/pid
  mkdir gantry
  tar --extract --gzip --file=gantry.tar.gz --directory=gantry
  install
  echo "$*" > $JOB/flags
  # A process group of its own, so that `stop` reaches the training and its child processes. The shell
  # around it survives the signal and writes the exit code.
  TPU_NAME=local PYTHONUNBUFFERED=1 setsid bash -c '
    trap : TERM
    cd gantry
    code=0
    ../'$JOB'/venv/bin/python -m engine.train "$@" || code=$?
    echo $code > ../'$JOB'/exit_code' training "$@" < /dev/null > $JOB/log 2>&1 &
  echo $! > $JOB/pid
  rm $JOB/start_pid
}

install() {
  if cmp --silent gantry/requirements-tpu.lock $JOB/installed.lock; then return; fi
  rm -f $JOB/installed.lock
  local python
  python=$(suitable_python)
  echo "installing Gantry's dependencies with $python"
  "$python" -m venv --clear $JOB/venv
  $JOB/venv/bin/python -m pip --quiet --disable-pip-version-check install \
    --require-hashes --requirement gantry/requirements-tpu.lock
  cp gantry/requirements-tpu.lock $JOB/installed.lock
}

suitable_python() {
  local python
  for python in python3.13 python3.12 python3.11; do
    if "$python" -c 'import ensurepip, venv' 2> /dev/null; then
      echo "$python"
      return
    fi
  done
  # The TPU images on Ubuntu 22.04 have Python 3.10, which NumPy and Keras no longer support.
  python3 -m pip --quiet --disable-pip-version-check install --user uv >&2
  python3 -m uv python install --quiet 3.12 >&2
  python3 -m uv python find 3.12
}

follow() {
  flock $JOB/lock true < /dev/null > /dev/null 2>&1 &  # lives as long as the training does
  # grep numbers the lines. Its exit code is 1 if there are none.
  tail --lines=+"$1" --follow --sleep-interval=0.2 --pid=$! $JOB/log \
    | grep --text --line-number --line-buffered '' || true
  if [ ! -e $JOB/exit_code ]; then
    flock --nonblock $JOB/lock true || return 255  # it still runs; only the connection broke
    echo "the training was killed, as Linux does when memory runs out" >&2
    return 1
  fi
  return "$(cat $JOB/exit_code)"
}

stop() {
  if [ -e $JOB/start_pid ]; then kill "$(cat $JOB/start_pid)" || true; fi
  if [ -e $JOB/pid ]; then kill -TERM -- "-$(cat $JOB/pid)" || true; fi
}

# Bash reads the whole file before it runs `main`, so a new copy of the file cannot change a running one.
main() {
  "$@"
  exit
}
main "$@"
