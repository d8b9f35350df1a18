"""engine.translate as a user starts it: pictures in, pictures out, and what it refuses."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import engine.train
from engine.inference.restored_run import restore_run
from models.pytorch.state_dict_file import write_state_dict

GOLDENS = Path(__file__).parents[1] / "goldens"
NETWORKS = {  # name of the golden -> the run and network whose initial weights made it
    "unet128": ("pix2pix_unet128_batch", "G"),
    "resnet6": ("cyclegan_resnet6_instance", "G_A"),
}


def golden(name):
    with np.load(GOLDENS / f"translate_{name}.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The reference's files, by the golden's name."""
    folder = tmp_path_factory.mktemp("reference")
    paths = {}
    for name, (run, net) in NETWORKS.items():
        with np.load(GOLDENS / f"{run}_initial_weights.npz") as arrays:
            state = {key.removeprefix(f"{net}/"): arrays[key] for key in arrays if key.startswith(f"{net}/")}
        paths[name] = str(folder / f"{name}_net_G.pth")
        write_state_dict(paths[name], state)
    return paths


def write(path, pixels, **kwargs):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.fromarray(pixels).save(path, **kwargs)
    return str(path)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def written_in(folder):
    """Relative paths of all files in a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_refused(result, *expected):
    code, _, errors = result
    assert code == 2
    assert errors.count("\n") == 1 and "Traceback" not in errors
    for text in expected:
        assert text in errors


@pytest.mark.parametrize(
    "name, network, norm_mode",
    [
        ("unet128", "unet_128", "batch_statistics"),
        ("unet128", "unet_128", "moving_statistics"),
        ("unet128", None, None),
        ("resnet6", "resnet_6blocks", None),
    ],
)
def test_a_picture_through_the_references_generator(
    translate, checkpoints, tmp_path, name, network, norm_mode
):
    data = golden(name)
    source = write(tmp_path / "in" / "photo.v2.png", data["input"])
    code, told, errors = translate(
        torch_checkpoint=checkpoints[name],
        network=network,
        norm_mode=norm_mode,
        input=source,
        output=tmp_path / "out",
        raw=True,
    )
    assert (code, errors) == (0, "")
    assert "translated 1 picture" in told
    used = f"batch norm with {norm_mode or 'batch_statistics'}" if name == "unet128" else "no batch norm"
    assert used in told
    assert sorted(os.listdir(tmp_path / "out")) == ["photo.v2.npy", "photo.v2.png"]
    raw = np.load(tmp_path / "out" / "photo.v2.npy")
    expected = data[norm_mode or "batch_statistics"]
    assert raw.dtype == np.float32
    np.testing.assert_allclose(raw, expected, rtol=0, atol=1e-4)
    shown = np.asarray(Image.open(tmp_path / "out" / "photo.v2.png"))
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, np.floor((raw.astype(np.float64) + 1) * 127.5 + 0.5))


def test_folders_and_patterns_of_pictures_of_all_kinds_and_sizes(translate, checkpoints, tmp_path):
    folder = tmp_path / "in"
    colour = noise(8, 12, 3)
    write(folder / "a.png", colour)
    write(folder / "grey.png", colour[..., 0])
    write(folder / "grey_as_colour.png", np.repeat(colour[..., :1], 3, axis=-1))
    deep = colour[..., 0].astype(np.uint16) * 257  # the same greys in 16 bits
    write(folder / "deep.png", deep)
    write(folder / "opaque.png", np.dstack([colour, np.full((8, 12), 255, np.uint8)]))
    write(folder / "photo.JPG", noise(20, 16, 3), quality=95)
    write(folder / "inside" / "b.png", colour)
    (folder / "notes.txt").write_text("no picture")
    # One by one: the rounding of a picture then does not depend on the others.
    flags = {"torch_checkpoint": checkpoints["resnet6"], "raw": True, "batch": 1}

    code, told, _ = translate(**flags, input=folder, output=tmp_path / "all")
    assert code == 0
    assert np.load(tmp_path / "all" / "inside" / "b.npy").shape == (8, 12, 3)
    raw = {path.stem: np.load(path) for path in (tmp_path / "all").glob("*.npy")}
    assert raw.keys() == {"a", "grey", "grey_as_colour", "deep", "opaque", "photo"}
    assert raw["photo"].shape == (20, 16, 3) and raw["a"].shape == (8, 12, 3)
    np.testing.assert_allclose(raw["grey"], raw["grey_as_colour"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(raw["deep"], raw["grey"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(raw["opaque"], raw["a"], rtol=0, atol=1e-6)
    written = tf.io.decode_png((tmp_path / "all" / "deep.png").read_bytes(), dtype=tf.uint16).numpy()
    expected = (raw["deep"].astype(np.float64) + 1) * 32767.5
    assert np.abs(written - expected).max() < 0.51  # halves are decided in float32
    bits = {name: (tmp_path / "all" / f"{name}.png").read_bytes()[24] for name in raw}  # of a sample
    assert bits == dict.fromkeys(raw, 8) | {"deep": 16}
    assert np.abs(raw["grey"] - raw["a"]).max() > 0.01

    flags["raw"] = False
    assert translate(**flags, input=folder / "gre*.png", output=tmp_path / "some")[0] == 0
    assert sorted(os.listdir(tmp_path / "some")) == ["grey.png", "grey_as_colour.png"]
    assert translate(**flags, input=folder / "**" / "b.png", output=tmp_path / "deeper")[0] == 0
    assert written_in(tmp_path / "deeper") == ["inside/b.png"]


def test_what_cannot_be_translated_is_refused(translate, checkpoints, tmp_path):
    colour = noise(8, 12, 3)
    good = write(tmp_path / "good" / "a.png", colour)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.png").write_bytes(Path(good).read_bytes()[:20])
    write(tmp_path / "twins" / "a.png", colour)
    write(tmp_path / "twins" / "a.jpg", colour)
    (tmp_path / "clip.yuv").write_bytes(b"frames")
    (tmp_path / "empty").mkdir()
    for flags, expected in (
        ({"input": tmp_path / "damaged"}, ["a.png", "remove or replace"]),
        ({"input": tmp_path / "twins"}, ["a.jpg", "a.png", "would both become"]),
        ({"input": tmp_path / "clip.yuv"}, ["clip.yuv", "--video_size=352x288"]),
        ({"input": tmp_path / "empty"}, ["no picture there", "empty"]),
        ({"input": tmp_path / "*.tiff"}, ["no picture there", "pattern"]),
        ({"input": good, "output": tmp_path / "good"}, ["would overwrite", good]),
        ({"input": good, "output": Path(good) / "x"}, ["--output", "cannot be written"]),
        ({"input": None}, ["no --input given"]),
        ({"output": None}, ["no --output given"]),
        ({"torch_checkpoint": None}, ["--workdir=RUN", "--torch_checkpoint"]),
        ({"workdir": tmp_path}, ["--workdir=RUN", "--torch_checkpoint"]),
        ({"workdir": tmp_path, "torch_checkpoint": None}, ["holds no run"]),
        ({"workdir": tmp_path, "torch_checkpoint": None, "network": "unet_128"}, ["--network=unet_128"]),
        ({"network": "unet_128"}, ["resnet_6blocks", "not unet_128", "missing: ", "too many: "]),
        ({"network": "unet_512"}, ["unet_512", "unet_256"]),
        ({"norm_mode": "batch"}, ["--norm_mode=batch", "moving_statistics"]),
        ({"format": "bmp"}, ["--format=bmp", "png, jpeg, webp, tiff"]),
        ({"target": tmp_path / "good"}, ["--target=", "goes with --compare"]),
        ({"target": tmp_path / "x", "compare": True}, ["--target=", "no such folder"]),
        ({"target": tmp_path / "empty", "compare": True}, ["--target=", "no picture there"]),
        ({"batch": 0}, ["--batch=0", "at least 1"]),
        ({"memory_gib": 0}, ["--memory_gib=0", "above 0"]),
        ({"tile": -1}, ["--tile=-1", "at least 0"]),
        ({"tile": 64, "overlap": 32}, ["--tile=64, --overlap=32", "twice the overlap"]),
        ({"dropout": True}, ["--dropout: goes with --workdir"]),
        ({"weights": "raw"}, ["--weights=raw: goes with --workdir"]),
        ({"checkpoint": "best"}, ["--checkpoint=best: goes with --workdir"]),
        ({"resize": "as_trained"}, ["--resize=as_trained: goes with --workdir"]),
        ({"side_map": "none"}, ["--side_map=none: goes with --workdir or --model"]),
        ({"torch_checkpoint": good}, [good, "torch.save"]),
    ):
        flags = {
            "torch_checkpoint": checkpoints["resnet6"],
            "input": good,
            "output": tmp_path / "out",
        } | flags
        assert_refused(translate(**flags), *expected)
    assert not os.path.exists(tmp_path / "out")
    np.testing.assert_array_equal(np.asarray(Image.open(good)), colour)


def test_a_run_of_ours(translate, synthetic_datasets, tmp_path):
    workdir = str(tmp_path / "run")
    engine.train.train(
        gin_files=["gin/quickstart.gin"],
        gin_params=[
            f"DATA_DIR = {synthetic_datasets!r}",
            "pix2pix.Pix2Pix.generator_filters = 2",
            "pix2pix.Pix2Pix.discriminator_filters = 2",
            "TOTAL_EXAMPLES = 2",
            "BATCH_SCHEDULE = 2",
        ],
        workdir=workdir,
    )
    pixels = noise(64, 128, 3)  # another size than that of training
    source = write(tmp_path / "in" / "a.png", pixels)
    generator = restore_run(workdir).state.networks["generator"]
    x = pixels[np.newaxis].astype(np.float32) / 127.5 - 1
    expected = {None: generator(x, training=False)[0].numpy()}
    for layer in generator.layers:
        if hasattr(layer, "inference_norm"):
            layer.inference_norm = "moving_statistics"
    expected["moving_statistics"] = generator(x, training=False)[0].numpy()
    assert np.abs(expected[None] - expected["moving_statistics"]).max() > 1e-3
    for norm_mode, array in expected.items():
        output = tmp_path / f"out_{norm_mode}"
        flags = {"workdir": workdir, "input": source, "output": output, "norm_mode": norm_mode, "raw": True}
        code, told, _ = translate(**flags)
        assert code == 0 and f"{workdir} at 2 examples" in told
        np.testing.assert_allclose(np.load(output / "a.npy"), array, rtol=0, atol=1e-5)

    flags = {"workdir": workdir, "output": tmp_path / "none"}
    assert_refused(translate(**flags, input=source, weights="averaged"), "keeps no moving averages")
    assert_refused(translate(**flags, input=source, weights="best"), "--weights=best: unknown")
    assert_refused(translate(**flags, input=source, checkpoint="7"), "--checkpoint=7", "2")
    assert not os.path.exists(tmp_path / "none")
