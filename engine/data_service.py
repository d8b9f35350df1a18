"""Serves the reading and decoding of training data from this machine, by tf.data service.

    python -m engine.data_service --workers=2
    python -m engine.train --gin_file=... --gin_param='supply.Supply.service = "grpc://localhost:5050"'

Without --dispatcher it starts a dispatcher and its workers, all on this machine. Further machines are given
the dispatcher's address, and see the data under the same path:

    python -m engine.data_service --dispatcher=HOST:5050 --address=THIS_HOST --workers=8

Every example comes once an epoch, but the order does not repeat, and neighbouring epochs mix: a worker is
given one shuffle window after the other. Ends on Ctrl-C.
"""

from __future__ import annotations

import signal
import threading

import tensorflow as tf
from absl import flags

from data.errors import DataError
from engine.cli.program import run_program

_LOOPBACK = "localhost"


def start(
    *, port: int = 5050, workers: int = 1, dispatcher: str | None = None, address: str = _LOOPBACK
) -> tuple[str, list]:
    """Starts servers in threads of this process; all that the program does.

    Args:
        port: of the dispatcher, if one is to be started; 0 takes a free one.
        workers: how many to start; each decodes with all cores it finds idle.
        dispatcher: "host:port" of one that runs already; None starts one.
        address: of this machine, as the dispatcher and the training program reach it.

    Returns:
        (the address to train with, "grpc://host:port"; the servers, which run as long as they are held).

    Raises:
        DataError: an argument cannot be used, or the port is taken.
    """
    if workers < 1:
        raise DataError(f"workers = {workers}: must be at least 1.")
    service, servers = tf.data.experimental.service, []
    if dispatcher is None:
        try:
            servers.append(service.DispatchServer(service.DispatcherConfig(port=port)))
        except (tf.errors.OpError, RuntimeError) as error:
            raise DataError(f"port = {port}: cannot be used ({error}); choose another.") from error
        dispatcher = f"{address}:{servers[0].target.rpartition(':')[2]}"
    for _ in range(workers):
        config = service.WorkerConfig(dispatcher_address=dispatcher, worker_address=f"{address}:%port%")
        servers.append(service.WorkerServer(config))
    return f"grpc://{dispatcher}", servers


def define_flags(values: flags.FlagValues) -> None:
    for name, default, text in (
        ("port", 5050, "Port of the dispatcher; 0 takes a free one."),
        ("workers", 1, "Workers to start on this machine."),
    ):
        flags.DEFINE_integer(name, default, text, flag_values=values)
    for name, default, text in (
        ("dispatcher", None, "HOST:PORT of a dispatcher that runs; one is started if not given."),
        ("address", _LOOPBACK, "This machine, as the others reach it."),
    ):
        flags.DEFINE_string(name, default, text, flag_values=values)


def main(values: flags.FlagValues) -> None:
    service, servers = start(
        port=values.port, workers=values.workers, dispatcher=values.dispatcher, address=values.address
    )
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    print(f"serving with {len(servers)} servers: supply.Supply.service = {service!r}", flush=True)
    stopped.wait()


def run() -> None:
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
