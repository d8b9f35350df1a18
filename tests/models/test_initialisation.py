"""Initial weights against the definitions of their distributions."""

import keras
import numpy as np
import pytest

from engine.errors import ConfigurationError
from models.initialisation import SCHEMES, Initialisation, initialise
from models.networks.layers import Conv, ConvTranspose, image_input
from models.networks.norms import normalise


def network():
    x = image = image_input(32)
    x = Conv(64, 4, stride=2, padding=1, name="conv")(x)
    x = normalise(x, "batch", name="norm")
    x = ConvTranspose(32, 4, name="transpose")(x)
    x = ConvTranspose(64, 4, name="transpose_2")(x)
    x = ConvTranspose(32, 4, name="transpose_3")(x)
    x = keras.layers.Dense(8, kernel_initializer="zeros", name="zero")(x)
    return keras.Model(image, x)


def kernel(model, name):
    """In PyTorch's layout: [out, in, h, w] of a convolution, [in, out, h, w] of a transposed one."""
    return np.transpose(model.get_layer(name).kernel.numpy(), (3, 2, 0, 1)).astype(np.float64)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_kernels_have_the_moments_of_pytorch(scheme):
    keras.utils.set_random_seed(0)
    model = network()
    initialise(model, scheme=scheme, gain=0.05)
    again = network()
    keras.utils.set_random_seed(0)
    network()
    initialise(again, scheme=scheme, gain=0.05)
    np.testing.assert_array_equal(kernel(model, "conv"), kernel(again, "conv"))  # the same seed
    for name in ("conv", "transpose"):
        drawn = kernel(model, name)
        rows, fan_out = len(drawn), drawn.shape[0] * 16
        fan_in = drawn.shape[1] * 16  # PyTorch always counts the second axis as inputs
        deviation = {
            "normal": 0.05,
            "xavier": 0.05 * np.sqrt(2 / (fan_in + fan_out)),
            "kaiming": np.sqrt(2 / fan_in),
            "orthogonal": 0.05 / np.sqrt(fan_in),  # unit rows of fan_in numbers
        }[scheme]
        assert drawn.std() == pytest.approx(deviation, rel=0.02)
        assert abs(drawn.mean()) < 4 * deviation / np.sqrt(drawn.size)
        if scheme == "orthogonal":
            flat = drawn.reshape(rows, -1)
            np.testing.assert_allclose(flat @ flat.T, 0.05**2 * np.eye(rows), atol=1e-7)
    # Kernels of the same shape differ.
    assert np.abs(kernel(model, "transpose") - kernel(model, "transpose_3")).max() > 0
    assert model.get_layer("norm").gamma.numpy().std() == pytest.approx(0.05, rel=0.3)
    assert not model.get_layer("zero").kernel.numpy().any()


def test_the_task_s_own_kernels_stay_and_files_come_last():
    keras.utils.set_random_seed(0)
    model = network()
    before = model.get_weights()

    def weights(networks):
        networks["generator"].get_layer("conv").bias.assign(np.full(64, 7.0))

    Initialisation(weights=weights)({"generator": model})
    for old, new in zip(
        before[:1] + before[2:], model.get_weights()[:1] + model.get_weights()[2:], strict=True
    ):
        np.testing.assert_array_equal(old, new)
    Initialisation(scheme="kaiming", weights=weights)({"generator": model})
    assert np.all(model.get_layer("conv").bias.numpy() == 7.0)
    assert np.abs(model.get_weights()[0] - before[0]).max() > 0


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ConfigurationError, match="scheme = 'he'.*normal, xavier, kaiming, orthogonal"):
        Initialisation(scheme="he")
    with pytest.raises(ConfigurationError, match="gain = 0"):
        Initialisation(gain=0)
