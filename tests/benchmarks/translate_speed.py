"""How much longer engine.translate takes for many small pictures than the generator alone.

python tests/benchmarks/translate_speed.py --photos=FOLDER [--pictures=500] [--size=128] [--rounds=2]

Pictures of one size are cut out of the photos in FOLDER. The program reads, translates and writes them; "the
generator alone" computes the same batches from memory, and keeps nothing. Both load the same weights of
unet_128 (64 filters) and trace it. Rounds take turns; processor time of the whole process counts, beside wall
time, which other programs on the machine disturb.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time

import numpy as np
import tensorflow as tf
from PIL import Image

from engine.distribution.devices import make_devices
from engine.pictures.picture_paths import find_pictures
from engine.translate import translate
from engine.translation.limits import Limits
from models.networks.generators import build_generator
from models.pytorch.weights import load_generator
from models.torch_weights import save_reference

NETWORK = "unet_128"


def cut_pictures(photos, folder, *, pictures, size):
    """Writes parts of photos as PNG; returns them as float32 [B, size, size, 3] in [-1, 1]."""
    random = np.random.default_rng(0)
    images = [np.asarray(Image.open(picture.path).convert("RGB")) for picture in find_pictures(photos)]
    images = [image for image in images if min(image.shape[:2]) >= size]
    parts = []
    for number in range(pictures):
        image = images[number % len(images)]
        top, left = (random.integers(0, length - size + 1) for length in image.shape[:2])
        parts.append(image[top : top + size, left : left + size])
        Image.fromarray(parts[-1]).save(os.path.join(folder, f"{number:04d}.png"))
    return np.stack(parts).astype(np.float32) / 127.5 - 1


def generator_alone(weights, images):
    """What cannot be left out: the weights, one tracing, and the network itself."""
    _, model = load_generator(weights, network=NETWORK)
    spec = tf.TensorSpec([None, *images.shape[1:]])
    function = tf.function(lambda x: model(x, training=False), input_signature=[spec], autograph=False)
    batch = Limits().batch
    for first in range(0, len(images), batch):
        function(tf.constant(images[first : first + batch]))


def measured(work):
    """(processor time, wall time) of a call in seconds."""
    processor, wall = time.process_time(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        work()
    return time.process_time() - processor, time.perf_counter() - wall


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", required=True)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    make_devices("mirrored")
    with tempfile.TemporaryDirectory() as folder:
        source, weights = os.path.join(folder, "in"), os.path.join(folder, "latest_net_G.pth")
        os.makedirs(source)
        images = cut_pictures(options.photos, source, pictures=options.pictures, size=options.size)
        settings = {"name": NETWORK, "input_channels": 3, "output_channels": 3}
        save_reference(build_generator(NETWORK, **settings, norm="batch", dropout=False), weights)
        times = {"generator alone": [], "engine.translate": []}
        for number in range(options.rounds + 1):
            output = os.path.join(folder, f"out{number}")
            alone = measured(lambda: generator_alone(weights, images))
            whole = measured(
                lambda output=output: translate(torch_checkpoint=weights, input=source, output=output)
            )
            assert len(os.listdir(output)) == options.pictures
            if number:  # the first round starts TensorFlow
                times["generator alone"].append(alone)
                times["engine.translate"].append(whole)
    best = {name: np.min(rounds, axis=0) for name, rounds in times.items()}
    for name, (processor, wall) in best.items():
        print(f"{name:<18} {processor:7.1f} s of processors  {wall:7.1f} s")
    ratios = best["engine.translate"] / best["generator alone"]
    print(f"ratio              {ratios[0]:7.2f}                  {ratios[1]:7.2f}")


if __name__ == "__main__":
    main()
