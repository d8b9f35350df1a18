"""engine.translate in every mode: weights, norm, dropout; in batches as one by one; on a terminal."""

import contextlib
import fcntl
import io
import os
import pty
import struct
import termios

import keras
import numpy as np
import pytest
from PIL import Image

import engine.translate
from engine.inference.restored_run import restore_run
from engine.train import train
from models.networks.dropout import Dropout
from models.networks.generators import GENERATORS, Generator
from models.networks.layers import Conv, image_input
from models.networks.norms import normalise


def tiny_generator(*, name, input_channels, output_channels, inference_norm, **_):
    """Compiled soon, with batch norm and dropout."""
    image = image_input(input_channels)
    x = Conv(4, 3, padding=1, name="first")(image)
    x = normalise(x, "batch", inference_norm=inference_norm, name="norm")
    x = Dropout(0.5, name="dropout")(x)
    x = Conv(output_channels, 3, padding=1, activation="tanh", name="last")(x)
    return keras.Model(image, x, name=name)


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GENERATORS, "tiny", Generator(tiny_generator, size_multiple=4, smallest_size=8))
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, tiny, synthetic_datasets):
    """The directory of a run of 4 examples with an EMA."""
    workdir = str(tmp_path_factory.mktemp("trained") / "run")
    train(
        gin_files=["gin/quickstart.gin"],
        gin_params=[
            "pix2pix.Pix2Pix.generator = 'tiny'",
            "pix2pix.Pix2Pix.discriminator_filters = 2",
            "pix2pix.Pix2Pix.ema_decay = 0.9",
            "CROP_SIZE = 32",
            "LOAD_SIZE = 32",
            "LEARNING_RATE = 0.02",
            "TOTAL_EXAMPLES = 4",
            "BATCH_SCHEDULE = 2",
            "SAMPLE_EVERY = 0",
            f"DATA_DIR = {synthetic_datasets!r}",
        ],
        workdir=workdir,
    )
    return workdir


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of nine pictures of three sizes, in a mixed order."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number, size in enumerate([(32, 32), (20, 33), (32, 32), (32, 31)] * 2 + [(5, 70)]):
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def raw(folder):
    return {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}


def test_weights_and_norm_mode_are_chosen(translate, workdir, pictures, tmp_path):
    flags = {"workdir": workdir, "input": pictures / "0.png", "raw": True}
    x = np.asarray(Image.open(pictures / "0.png"))[np.newaxis] / np.float32(127.5) - 1
    made = []
    for weights in (None, "averaged", "raw"):
        for norm_mode in (None, "moving_statistics"):
            output = tmp_path / f"{weights}{norm_mode}"
            code, told, _ = translate(**flags, output=output, weights=weights, norm_mode=norm_mode)
            kind, norm = weights or "averaged", norm_mode or "batch_statistics"
            assert code == 0 and f"{kind} weights; batch norm with {norm}; dropout off" in told
            state = restore_run(workdir).state
            network = (state.networks if weights == "raw" else state.averaged)["generator"]
            network.get_layer("norm").inference_norm = norm
            [output] = raw(output).values()
            np.testing.assert_allclose(output, network(x, training=False)[0], rtol=0, atol=1e-5)
            made.append(output)
    assert np.abs(made[0] - made[4]).max() > 1e-3 and np.abs(made[0] - made[1]).max() > 1e-3


def test_dropout_depends_on_the_number_of_a_picture_only(translate, workdir, pictures, tmp_path):
    flags = {"workdir": workdir, "input": pictures, "raw": True, "dropout": True}
    for batch in (1, 3):
        code, told, _ = translate(**flags, output=tmp_path / f"{batch}", batch=batch)
        assert code == 0 and "dropout on" in told
    one, three = raw(tmp_path / "1"), raw(tmp_path / "3")
    assert translate(**flags | {"dropout": False}, output=tmp_path / "off")[0] == 0
    off = raw(tmp_path / "off")
    for name, output in one.items():
        np.testing.assert_allclose(three[name], output, rtol=0, atol=1e-5)
        assert np.abs(off[name] - output).max() > 1e-2
    # Going on, the numbers stay those among all pictures.
    os.remove(tmp_path / "3" / "5.png")
    assert translate(**flags, output=tmp_path / "3", skip_existing=True)[0] == 0
    np.testing.assert_allclose(raw(tmp_path / "3")["5"], one["5"], rtol=0, atol=1e-5)


def test_batches_of_equal_sizes_give_what_pictures_alone_give(translate, workdir, pictures, tmp_path):
    sizes = {path.stem: Image.open(path).size[::-1] for path in pictures.glob("*.png")}
    network = restore_run(workdir).state.averaged["generator"]
    written = []
    for batch in (1, 2, 8):
        output = tmp_path / f"{batch}"
        written.append(
            engine.translate.translate(
                workdir=workdir, input=str(pictures), output=str(output), raw=True, batch=batch
            )
        )
        assert [os.path.basename(path) for path in written[-1]] == [f"{n}.png" for n in range(9)]
        for name, made in raw(output).items():
            pixels = np.asarray(Image.open(pictures / f"{name}.png"))
            height, width = sizes[name]
            multiple = 4 if height > 4 else 8
            missing = [(0, -height % multiple), (0, -width % multiple), (0, 0)]
            if height < 8:
                missing[0] = (0, 8 - height)
                missing[1] = (0, -width % 8)
            padded = np.pad(pixels, missing, mode="reflect")
            expected = network(padded[np.newaxis] / np.float32(127.5) - 1, training=False)[0]
            np.testing.assert_allclose(made, expected[:height, :width], rtol=0, atol=1e-5)


def test_tiles_are_said_with_their_seams(translate, workdir, pictures, tmp_path):
    flags = {"workdir": workdir, "input": pictures, "tile": 24, "overlap": 4}
    code, told, _ = translate(**flags, output=tmp_path / "own")
    assert code == 0
    assert "note: 9 of 9 pictures in tiles of 24 pixels with an overlap of 4 (every output depends" in told
    assert "steps across their borders are" in told
    flags |= {"norm_mode": "moving_statistics"}
    code, told, _ = translate(**flags, output=tmp_path / "moving")
    assert code == 0 and "the network needs 4, so the result is that of the whole picture)" in told


def read_to_end(leader):
    """All that a terminal has got, once it is closed: it may come in several pieces."""
    shown = b""
    with contextlib.suppress(OSError):  # Linux's end of a closed terminal
        while piece := os.read(leader, 100_000):
            shown += piece
    return shown.decode()


def test_a_terminal_shows_a_bar(workdir, pictures, tmp_path, monkeypatch):
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(follower, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        engine.translate.translate(workdir=workdir, input=str(pictures), output=str(tmp_path / "out"))
    shown = read_to_end(leader)
    os.close(leader)
    assert "100%" in shown and "9/9" in shown
    # Nothing of it elsewhere.
    text = io.StringIO()
    monkeypatch.setattr("sys.stderr", text)
    engine.translate.translate(workdir=workdir, input=str(pictures), output=str(tmp_path / "out"))
    assert text.getvalue() == ""
