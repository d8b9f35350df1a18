"""The signatures of a SavedModel for the bytes of image files, as TensorFlow Serving would call them."""

import base64
import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from engine.exporting.encoded_pictures import PixelFormat
from tests.engine.exporting.test_picture_sizes import padded


def picture(*shape, seed=0):
    """Smooth, uint8."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (1, 5, 5, shape[-1]))
    return np.uint8(np.clip(tf.image.resize(coarse, shape[:2], "bicubic")[0], 0, 255))


def file_of(pixels, kind="PNG", **options):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def translated(exported, pixels):
    """By the run's own network, on NumPy's padding: the picture that should come, before it is rounded."""
    x = padded(np.float32(pixels / 127.5 - 1)[np.newaxis], 32, 32)
    height, width = pixels.shape[:2]
    return (exported.networks["generator"](x, training=False).numpy()[0, :height, :width] + 1) * 127.5


def assert_is(found, expected):
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert np.abs(found - expected).max() < 0.51  # halves are decided in float32


def test_a_request_to_tensorflow_serving(export_run):
    exported = export_run("batch statistics", formats=["saved_model"])
    pictures = [picture(64, 32, 3), picture(45, 70, 3, seed=1), picture(20, 33, 3, seed=2)]
    files = [file_of(pictures[0]), file_of(pictures[1]), file_of(pictures[2], "JPEG", quality=95)]
    request = json.dumps(
        {
            "signature_name": "encoded",
            "inputs": {"image_bytes": [{"b64": base64.b64encode(content).decode()} for content in files]},
        }
    )
    # Serving's REST interface: {"b64": ...} becomes bytes, and outputs named *_bytes become base64 again.
    parsed = json.loads(request)
    signature = tf.saved_model.load(f"{exported.path}/saved_model/1").signatures[parsed["signature_name"]]
    inputs = {
        name: tf.constant([base64.b64decode(each["b64"]) for each in values])
        for name, values in parsed["inputs"].items()
    }
    outputs = signature(**inputs)
    assert all(name.endswith("_bytes") for name in outputs)
    response = json.dumps(
        {"outputs": {key: [base64.b64encode(x).decode() for x in v.numpy()] for key, v in outputs.items()}}
    )
    found = [
        Image.open(io.BytesIO(base64.b64decode(text)))
        for text in json.loads(response)["outputs"]["png_bytes"]
    ]
    assert [image.format for image in found] == ["PNG"] * 3
    # TensorFlow's accurate DCT gives Pillow's pixels.
    pictures[2] = np.asarray(Image.open(io.BytesIO(files[2])))
    for image, pixels in zip(found, pictures, strict=True):
        assert_is(np.asarray(image), translated(exported, pixels))


def test_pixels_of_pictures_of_several_sizes(export_run):
    exported = export_run("batch statistics", formats=["saved_model"])
    signature = tf.saved_model.load(f"{exported.path}/saved_model/1").signatures["pixels"]
    pictures = [picture(64, 32, 3), picture(20, 33, 3, seed=2)]
    found = signature(image_bytes=tf.constant([file_of(pixels) for pixels in pictures]))
    assert found["size"].numpy().tolist() == [[64, 32], [20, 33]]
    assert found["pixels"].shape == (2, 64, 33, 3)
    for row, pixels in enumerate(pictures):
        height, width = pixels.shape[:2]
        assert_is(found["pixels"][row, :height, :width].numpy(), translated(exported, pixels))
        assert not found["pixels"][row, height:].numpy().any()
        assert not found["pixels"][row, :, width:].numpy().any()
    nothing = signature(image_bytes=tf.constant([], tf.string))
    assert nothing["pixels"].shape[0] == nothing["size"].shape[0] == 0
    with pytest.raises(tf.errors.InvalidArgumentError):
        signature(image_bytes=tf.constant([b"no picture"]))


def opaque(pixels):
    return np.dstack([pixels, np.full(pixels.shape[:2], 255)])


WHOLE_8, WHOLE_16 = (0.0, 255.0), (0.0, 65535.0)


@pytest.mark.parametrize(
    "dtype, value_range, channels, pixels, kind, expected",
    [
        ("uint8", WHOLE_8, 3, picture(5, 6, 1)[..., 0], "PNG", lambda x: np.dstack([x] * 3)),
        ("uint8", WHOLE_8, 4, picture(5, 6, 3), "PNG", opaque),
        ("uint8", WHOLE_8, 2, picture(5, 6, 2), "PNG", lambda x: x),
        ("uint8", WHOLE_8, 1, picture(5, 6, 1)[..., 0] * np.uint16(256), "PNG", lambda x: x / 257.0),
        ("uint16", WHOLE_16, 1, picture(5, 6, 1)[..., 0], "PNG", lambda x: x * 257.0),
        ("uint16", WHOLE_16, 1, picture(5, 6, 1)[..., 0] * np.uint16(251), "PNG", lambda x: x),
        ("uint16", WHOLE_16, 1, np.full((8, 8), 130, np.uint8), "JPEG", lambda x: x * 257.0),
        ("uint8", WHOLE_8, 4, np.full((8, 8, 3), 130, np.uint8), "JPEG", opaque),
        ("uint16", (0.0, 4095.0), 1, picture(5, 6, 1)[..., 0] * np.uint16(16), "PNG", lambda x: x),
    ],
)  # fmt: skip
def test_bytes_become_what_the_data_set_stores(dtype, value_range, channels, pixels, kind, expected):
    stored = PixelFormat(dtype=dtype, value_range=value_range, channels=channels)
    content = tf.io.encode_png(pixels).numpy() if channels == 2 else file_of(pixels, kind)
    found = tf.function(stored.decode)(tf.constant(content))
    low, high = value_range
    wanted = expected(pixels.astype(np.float64)).reshape(*pixels.shape[:2], channels)
    rounding = 0.5 if pixels.dtype == np.uint16 and dtype == "uint8" else 0.0
    np.testing.assert_allclose((found + 1) / 2 * (high - low) + low, wanted, rtol=0, atol=rounding + 1e-2)


def test_values_outside_the_range_of_the_training_are_refused():
    stored = PixelFormat(dtype="uint16", value_range=(0.0, 4095.0), channels=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="outside 0 to 4095"):
        stored.decode(tf.constant(file_of(np.full((4, 4), 4096, np.uint16))))


def test_floats_have_no_image_file():
    assert not PixelFormat(dtype="float32", value_range=(0.0, 1.0), channels=3).has_encoding
    assert not PixelFormat(dtype="uint8", value_range=WHOLE_8, channels=5).has_encoding
