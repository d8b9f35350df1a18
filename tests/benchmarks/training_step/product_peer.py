"""A peer of `compare`: a large matrix product, for the rate at which these cores can multiply at all."""

import argparse

import tensorflow as tf

from tests.benchmarks.training_step.peer_protocol import serve

SIDE = 2048


def main() -> None:
    """Serves products of [2048, 2048] matrices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    matrix = tf.cast(tf.random.stateless_normal([SIDE, SIDE], [0, 1]), options.dtype)

    @tf.function(autograph=False)
    def product() -> tf.Tensor:
        return tf.matmul(matrix, tf.transpose(matrix))[0, 0]

    serve(lambda: product().numpy(), flop_of_step=2.0 * SIDE**3)


if __name__ == "__main__":
    main()
