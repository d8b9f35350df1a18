"""Small folders of images and a small prepared data set."""

import numpy as np
import pytest
from absl import flags
from PIL import Image

from data import prepare
from data.preparation import prepare_flags, tfds_writer
from data.tfrecords import image_encoding
from engine.cli import program

SIZES = [(40, 44), (36, 52), (60, 34), (48, 48), (37, 41)]  # (height, width)
TRAIN_EXAMPLES = 23


def noise_image(seed, height, width, channels=3):
    """Smooth noise over the whole range: uint8 [height, width, channels]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, channels), np.uint8)
    big = Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(big).reshape(height, width, channels)


def pair_of(index):
    """The images of example `index` of the small set: A colour, B grey, of one size."""
    height, width = SIZES[index % len(SIZES)]
    return noise_image(index, height, width), noise_image(1000 + index, height, width, 1)


@pytest.fixture(name="pair_of", scope="session")
def pair_of_fixture():
    """Function of an id: the stored images A and B of the small set."""
    return pair_of


@pytest.fixture(scope="session")
def small_set(tmp_path_factory):
    """Folder with the data set "small": 23 training pairs in 6 shards of at most 4, 5 test pairs."""
    data_dir = tmp_path_factory.mktemp("datasets")

    def examples(first, last):
        for index in range(first, last):
            a, b = pair_of(index)
            yield {
                "name": f"pair {index}",
                "A": image_encoding.encode_png(a),
                "B": image_encoding.encode_png(b),
            }

    tfds_writer.write_dataset(
        name="small",
        data_dir=data_dir,
        features={
            side: image_encoding.StoredFormat(
                channels=channels, dtype="uint8", value_range=(0, 255)
            ).feature()
            for side, channels in (("A", 3), ("B", 1))
        },
        splits={
            "train": lambda: examples(0, TRAIN_EXAMPLES),
            "test": lambda: examples(TRAIN_EXAMPLES, TRAIN_EXAMPLES + 5),
        },
        metadata=lambda: {
            "smallest_height": {"pixels": 36, "name": "pair 1"},
            "smallest_width": {"pixels": 34, "name": "pair 2"},
        },
        examples_per_shard={"train": 4, "test": 5},
    )
    return str(data_dir)


@pytest.fixture
def save(tmp_path):
    """Saves an image under tmp_path/source: save("train/a.png", pixels, **Pillow options)."""

    def save_image(path, pixels, **options):
        path = tmp_path / "source" / path
        path.parent.mkdir(parents=True, exist_ok=True)
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels.squeeze())
        image.save(path, **options)
        return path

    return save_image


@pytest.fixture
def run_prepare(tmp_path, capsys):
    """Runs the binary in this process on tmp_path/source: gives exit code, stdout, stderr."""

    def run(layout="side_by_side", **settings):
        settings = {
            "layout": layout,
            "source": tmp_path / "source",
            "name": "made",
            "data_dir": tmp_path / "datasets",
        } | settings
        argv = ["prepare", *(f"--{name}={value}" for name, value in settings.items())]
        values = flags.FlagValues()
        prepare_flags.define(values)
        try:
            code = program.exit_code(prepare.main, program.parse_flags(argv, values), values)
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
