"""LPIPS against NumPy, with random weights in files as PyTorch names them."""

import numpy as np
import pytest
import tensorflow as tf

from engine.errors import ConfigurationError
from models.lpips import Lpips
from models.pytorch.state_dict_file import write_state_dict

# As torchvision: (number in `features`, inputs, outputs, kernel), with "pool" and "tap" between.
ALEX = [
    (0, 3, 64, 11), "tap", "pool", (3, 64, 192, 5), "tap", "pool", (6, 192, 384, 3), "tap",
    (8, 384, 256, 3), "tap", (10, 256, 256, 3), "tap",
]  # fmt: skip
VGG = [
    (0, 3, 64, 3), (2, 64, 64, 3), "tap", "pool", (5, 64, 128, 3), (7, 128, 128, 3), "tap", "pool",
    (10, 128, 256, 3), (12, 256, 256, 3), (14, 256, 256, 3), "tap", "pool",
    (17, 256, 512, 3), (19, 512, 512, 3), (21, 512, 512, 3), "tap", "pool",
    (24, 512, 512, 3), (26, 512, 512, 3), (28, 512, 512, 3), "tap",
]  # fmt: skip
NETWORKS = {"alex": ALEX, "vgg": VGG}
SIZES = {"alex": (47, 52), "vgg": (17, 20)}
SLICES = {"alex": [2, 5, 8, 10, 12], "vgg": [4, 9, 16, 23, 30]}
"""The reference's slice k holds the modules of `features` below the k-th number."""


def random_weights(network):
    """(tensors of torchvision's classifier, tensors of LPIPS's linear layers)."""
    rng = np.random.default_rng(0)
    backbone, linear = {}, {}
    outputs = 0
    for layer in NETWORKS[network]:
        if layer == "tap":
            name = f"lin{len(linear)}.model.1.weight"
            linear[name] = rng.uniform(0, 1, (1, outputs, 1, 1)).astype(np.float32)
        elif layer != "pool":
            k, inputs, outputs, kernel = layer
            scale = np.float32(np.sqrt(2 / (inputs * kernel**2)))
            shape = (outputs, inputs, kernel, kernel)
            backbone[f"features.{k}.weight"] = rng.standard_normal(shape, np.float32) * scale
            backbone[f"features.{k}.bias"] = rng.standard_normal(outputs, np.float32) * np.float32(0.1)
    backbone["classifier.6.bias"] = np.zeros(1000, np.float32)  # unused
    return backbone, linear


def lpips_by_numpy(network, weights, x, y):
    """Of images [H, W, 3] in [-1, 1], in float64."""
    pool = 3 if network == "alex" else 2

    def activations(image):
        z = (image - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]
        for layer in NETWORKS[network]:
            if layer == "tap":
                yield z
            elif layer == "pool":
                z = np.lib.stride_tricks.sliding_window_view(z, (pool, pool), (0, 1))[::2, ::2].max((3, 4))
            else:
                k, _, _, kernel = layer
                stride, padding = (4, 2) if kernel == 11 else (1, kernel // 2)
                z = np.pad(z, [(padding, padding), (padding, padding), (0, 0)])
                windows = np.lib.stride_tricks.sliding_window_view(z, (kernel, kernel), (0, 1))
                windows = windows[::stride, ::stride]  # [H, W, C, K, K]
                z = np.tensordot(
                    windows, weights[f"features.{k}.weight"].astype(float), ([2, 3, 4], [1, 2, 3])
                )
                z = np.maximum(z + weights[f"features.{k}.bias"], 0)

    total = 0.0
    for k, (a, b) in enumerate(zip(activations(x), activations(y), strict=True)):
        a, b = (z / (np.linalg.norm(z, axis=2, keepdims=True) + 1e-10) for z in (a, b))
        total += ((a - b) ** 2 @ weights[f"lin{k}.model.1.weight"].reshape(-1)).mean()
    return total


def images(network):
    rng = np.random.default_rng(1)
    y = rng.integers(0, 256, (2, *SIZES[network], 3), np.uint8)
    return np.clip(y + rng.normal(0, 30, y.shape), 0, 255).astype(np.uint8), y


@pytest.fixture(scope="module", params=NETWORKS)
def stored(request, tmp_path_factory):
    """A network, its tensors, and the files that hold them: one .pth, one .npz."""
    folder = tmp_path_factory.mktemp(request.param)
    backbone, linear = random_weights(request.param)
    write_state_dict(str(folder / "backbone.pth"), backbone)
    np.savez(folder / "linear.npz", **linear)
    return request.param, backbone | linear, (str(folder / "backbone.pth"), str(folder / "linear.npz"))


def test_lpips_equals_numpy(stored):
    network, weights, files = stored
    x, y = images(network)
    distance = Lpips(network=network, weights=files).build()
    found = tf.function(distance)(x, y)
    assert found.dtype == tf.float32
    expected = [
        lpips_by_numpy(network, weights, a / 127.5 - 1, b / 127.5 - 1) for a, b in zip(x, y, strict=True)
    ]
    assert min(expected) > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # Two runs of one convolution may round differently, as threads share the work.
    np.testing.assert_allclose(distance(x, x), [0, 0], atol=1e-10)
    fractions = ((image / 255).astype(np.float32) for image in (x, y))
    np.testing.assert_allclose(distance(*fractions, (0.0, 1.0)), expected, rtol=1e-4)


@pytest.fixture(scope="module")
def alex():
    return random_weights("alex")


def test_the_state_dict_of_a_whole_lpips_is_read(alex, tmp_path):
    backbone, linear = alex
    path = str(tmp_path / "lpips.pth")
    whole = dict(linear)
    for name, tensor in backbone.items():
        _, k, kind = name.split(".")
        if name.startswith("features"):
            number = next(n for n, end in enumerate(SLICES["alex"], 1) if int(k) < end)
            whole[f"net.slice{number}.{k}.{kind}"] = tensor
    write_state_dict(path, whole)
    x, y = images("alex")
    expected = lpips_by_numpy("alex", backbone | linear, x[0] / 127.5 - 1, y[0] / 127.5 - 1)
    found = Lpips(weights=(path,)).build()(x, y)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)


def test_what_cannot_be_compared_is_refused(alex, tmp_path):
    backbone, linear = alex
    path = str(tmp_path / "all.npz")
    np.savez(path, **backbone, **linear)
    distance = Lpips(weights=(path,)).build()
    x, y = images("alex")
    with pytest.raises(TypeError, match="LPIPS: the range of float32 images is unknown"):
        distance(x.astype(np.float32), y.astype(np.float32))
    with pytest.raises(
        ValueError, match=r"LPIPS \(alex\): needs images of at least 31 x 31 pixels, not 30 x"
    ):
        distance(x[:, :30], y[:, :30])
    assert np.all(np.isfinite(distance(x[:, :31, :31], y[:, :31, :31])))


def test_weights_that_do_not_fit_are_refused(alex, tmp_path):
    backbone, linear = alex
    only = str(tmp_path / "only.npz")
    np.savez(only, **backbone)
    with pytest.raises(ConfigurationError, match=r"no file has lin0.model.1.weight; give the files of torch"):
        Lpips(weights=(only,)).build()
    with pytest.raises(
        ConfigurationError, match=r"features.0.weight has the shape \(64, 3, 11, 11\), not \(64, 3"
    ):
        Lpips(network="vgg", weights=(only,)).build()
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK nothing")
    for path in (str(broken), str(tmp_path / "none.npz"), str(tmp_path / "none.pth")):
        with pytest.raises(ConfigurationError, match="cannot be read") as caught:
            Lpips(weights=(path,)).build()
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"Lpips.network = 'squeeze': unknown; use one of alex, vgg"):
        Lpips(network="squeeze", weights=(only,))
    for weights in ((), "alexnet.pth"):
        with pytest.raises(ConfigurationError, match="must be paths of files"):
            Lpips(weights=weights)
