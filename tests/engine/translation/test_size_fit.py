"""Which size a network takes, and padding to it."""

import numpy as np
import pytest

from engine.errors import ConfigurationError
from engine.translation.size_fit import SizeFit, pad
from models.networks.generators import check_image_size


def fit_of(network):
    return SizeFit(lambda height, width: check_image_size(network, height, width))


@pytest.mark.parametrize(
    "network, multiple, sizes",
    [
        ("unet_256", 256, {(256, 512): (256, 512), (1411, 1411): (1536, 1536), (1, 257): (256, 512)}),
        (
            "resnet_9blocks",
            4,
            {(1411, 1411): (1412, 1412), (8, 12): (8, 12), (1, 1): (8, 8), (5, 9): (8, 12)},
        ),
        ("edsr_8blocks", 1, {(1411, 3): (1411, 3), (1, 1): (1, 1)}),
    ],
)
def test_pictures_are_padded_to_what_a_generator_takes(network, multiple, sizes):
    fit = fit_of(network)
    assert {size: fit.padded(*size) for size in sizes} == sizes
    assert fit.multiple() == multiple


def test_a_network_of_one_size_takes_no_other():
    def check(height, width):
        if (height, width) != (64, 64):
            raise ConfigurationError(f"only 64x64, not {height}x{width}")

    fit = SizeFit(check)
    assert fit.padded(64, 64) == (64, 64) and fit.padded(60, 33) == (64, 64)
    with pytest.raises(ConfigurationError, match="not 65x64"):
        fit.padded(65, 64)


def test_what_fails_when_it_is_tried_is_padded_further():
    fit = SizeFit(lambda height, width: None)
    error = ConfigurationError("does not take 30x33")
    assert fit.padded(30, 33) == (30, 33)
    fit.refuse(30, 33, error)
    assert fit.padded(30, 33) == (30, 34)
    fit.refuse(30, 34, error)
    assert fit.padded(30, 33) == (32, 36)
    for power in range(2, 11):
        size = tuple(-(-length // 2**power) * 2**power for length in (30, 33))
        fit.refuse(*size, ConfigurationError("later"))
    with pytest.raises(ConfigurationError, match="does not take 30x33"):
        fit.padded(30, 33)


def test_padding_mirrors_and_repeats_where_that_is_too_short():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    assert pad(pixels, 3, 4) is pixels
    mirrored = pad(pixels, 5, 6)[..., 0]
    np.testing.assert_array_equal(mirrored[:3, :4], pixels[..., 0])
    np.testing.assert_array_equal(mirrored[:, 4:], mirrored[:, [2, 1]])
    np.testing.assert_array_equal(mirrored[3:], mirrored[[1, 0]])
    repeated = pad(pixels, 6, 8)[..., 0]  # three more of three rows, four more of four columns
    np.testing.assert_array_equal(repeated[3:], repeated[[2, 2, 2]])
    np.testing.assert_array_equal(repeated[:, 4:], repeated[:, [3, 3, 3, 3]])
    assert pad(pixels[:1, :1], 8, 8).shape == (8, 8, 1)
