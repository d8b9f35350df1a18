"""Reads and decodes training data on this machine for other machines, with the tf.data service.

    python -m engine.data_service --workers=2
    python -m engine.train --gin_file=... --gin_param='supply.Supply.service = "grpc://localhost:5050"'

Without --dispatcher it starts a dispatcher and its workers on this machine. To add workers on other machines,
give the dispatcher's address there. All machines must see the data under the same path:

    python -m engine.data_service --dispatcher=HOST:5050 --address=THIS_HOST --workers=8

Each example is read once an epoch. The order is not reproducible, and neighbouring epochs mix, because each
worker takes the next shuffle window when it is ready. Ctrl-C ends the program.
"""

from __future__ import annotations

import signal
import socket
import threading

import tensorflow as tf
from absl import flags

from data.errors import DataError
from engine.cli.program import run_program

_LOOPBACK = "localhost"
_CONNECT_SEC = 10.0


def start(
    *, port: int = 5050, workers: int = 1, dispatcher: str | None = None, address: str = _LOOPBACK
) -> tuple[str, list]:
    """Starts the servers in threads of this process. This is the whole program, for a notebook.

    Args:
      port: port of a new dispatcher; 0 takes a free one.
      workers: how many to start; each decodes on all idle cores.
      dispatcher: "host:port" of a dispatcher that runs already; None starts one.
      address: this machine's address for the dispatcher and the training program.

    Returns:
      The service's address, "grpc://host:port", and the servers, which stop when they are deleted.

    Raises:
      DataError: there are no workers, the port is taken, or no dispatcher answers.
    """
    if workers < 1:
        raise DataError(f"workers = {workers}: must be at least 1; raise it")
    service, servers = tf.data.experimental.service, []
    if dispatcher is None:
        try:
            servers.append(service.DispatchServer(service.DispatcherConfig(port=port)))
        except (tf.errors.OpError, RuntimeError) as error:
            raise DataError(f"port = {port}: cannot be used ({error}); choose another") from error
        dispatcher = f"{address}:{servers[0].target.rpartition(':')[2]}"
    _check_reachable(dispatcher)
    for _ in range(workers):
        config = service.WorkerConfig(dispatcher_address=dispatcher, worker_address=f"{address}:%port%")
        servers.append(service.WorkerServer(config))
    return f"grpc://{dispatcher}", servers


def _check_reachable(dispatcher: str) -> None:
    """Checks that a dispatcher answers: TensorFlow's worker would wait for it forever, deaf to signals."""
    host, _, port = dispatcher.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SEC).close()
    except (OSError, ValueError, OverflowError) as error:  # ValueError: no number, no name of a host
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"dispatcher {dispatcher!r}: does not answer ({reason}); give HOST:PORT of one that runs, and an "
            "address of this machine that others can reach"
        ) from error


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    for name, number, text in (
        ("port", 5050, "Port of the dispatcher; 0 takes a free one."),
        ("workers", 1, "Number of workers on this machine."),
    ):
        flags.DEFINE_integer(name, number, text, flag_values=values)
    for name, default, text in (
        ("dispatcher", None, "HOST:PORT of a running dispatcher; one is started if not given."),
        ("address", _LOOPBACK, "This machine's address for the others."),
    ):
        flags.DEFINE_string(name, default, text, flag_values=values)


def main(values: flags.FlagValues) -> None:
    """Runs the program with parsed flags, until SIGINT or SIGTERM."""
    service, servers = start(
        port=values.port, workers=values.workers, dispatcher=values.dispatcher, address=values.address
    )
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    print(f"serving with {len(servers)} servers: supply.Supply.service = {service!r}", flush=True)
    stopped.wait()


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
