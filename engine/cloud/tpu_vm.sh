#!/usr/bin/env bash
# What engine/tpu_job.py has done on the TPU VM. It copies this file and gantry.tar.gz into the home
# folder there and calls, any number of times:
#
#   bash tpu_vm.sh start FLAGS    installs Gantry and trains in the background; nothing if that trains
#                                 already; exit code 4 if something else trains here
#   bash tpu_vm.sh follow LINE    prints the training's output from this line on, each line with its
#                                 number (counted from there), until it ends; exits as the training did
#   bash tpu_vm.sh stop           asks it to save and end, as Ctrl-C would; ends a `start` that installs
#
# The training outlives the connection, so that a broken one costs nothing but a second `follow`.
set -euo pipefail
cd "$HOME"
readonly JOB=gantry_job

start() {
  mkdir -p $JOB
  exec 9>>$JOB/lock  # the training inherits it: who can lock it knows that none runs
  if ! flock --nonblock 9; then
    if [ "$*" = "$(cat $JOB/flags)" ]; then
      echo "this training runs here already: going on with it"
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
  # A process group of its own, so that `stop` reaches the training and what it started. The shell
  # around it outlives the signal to note the exit code.
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
  # grep numbers the lines, and finds none (exit code 1) where none was written.
  tail --lines=+"$1" --follow --sleep-interval=0.2 --pid=$! $JOB/log \
    | grep --text --line-number --line-buffered '' || true
  if [ ! -e $JOB/exit_code ]; then
    flock --nonblock $JOB/lock true || return 255  # it goes on; only the connection broke
    echo "the training was killed, which is what Linux does when memory runs out" >&2
    return 1
  fi
  return "$(cat $JOB/exit_code)"
}

stop() {
  if [ -e $JOB/start_pid ]; then kill "$(cat $JOB/start_pid)" || true; fi
  if [ -e $JOB/pid ]; then kill -TERM -- "-$(cat $JOB/pid)" || true; fi
}

# Read to its end before anything runs: a copy of it may come while it does.
main() {
  "$@"
  exit
}
main "$@"
