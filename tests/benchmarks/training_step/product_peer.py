"""A peer of `compare`: large matrix products, for the rate at which this device can multiply at all."""

import argparse

import tensorflow as tf

from tests.benchmarks.training_step.peer_protocol import serve


def main() -> None:
    """Serves products of square matrices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--products", type=int, default=1, help="in each step")
    options = parser.parse_args()
    scale = options.side**-0.5  # products of products stay finite
    matrix = scale * tf.random.stateless_normal([options.side, options.side], [0, 1])
    matrix = tf.cast(matrix, options.dtype)

    @tf.function(autograph=False)
    def product() -> tf.Tensor:
        found = matrix
        for _ in range(options.products):
            found = tf.matmul(found, matrix, transpose_b=True)
        return found[0, 0]

    serve(lambda: product().numpy(), flop_of_step=2.0 * options.products * options.side**3)


if __name__ == "__main__":
    main()
