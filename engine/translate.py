"""Translates pictures with a run's networks, or with a generator trained by the PyTorch reference.

  python -m engine.translate --workdir=runs/mine --input=PICTURES --output=DIR
  python -m engine.translate --torch_checkpoint=latest_net_G.pth --network=unet_256 --input=a.png --output=DIR

Each picture is translated whole and written as DIR/<its name>.png, 8 bits; --raw also writes the network's
output, float32 [H, W, C] in [-1, 1] and in the colour space it was trained in, as .npy beside it.
In a notebook: `from engine.translate import translate; translate(workdir=..., input=..., output=...)`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import flags

from data import gfile, imaging
from data.formats import image_reader
from data.formats.raw_video import VideoFormat, is_video_name
from engine.cli.program import run_program
from engine.errors import ConfigurationError
from engine.evaluation.sample_grid import write_png
from engine.inference.translator import Translator, translator_of_run, translator_of_torch_file
from engine.storage.atomic_files import reason_of, reraise_read_errors


def translate(
    *,
    input: str,  # noqa: A002, the flag's name
    output: str,
    workdir: str | None = None,
    checkpoint: str = "latest",
    torch_checkpoint: str | None = None,
    network: str | None = None,
    norm_mode: str | None = None,
    side_vector: str | None = None,
    raw: bool = False,
) -> list[str]:
    """Translates pictures one by one; all that the program does.

    Args:
      input: a picture, a folder (its own pictures, not those of folders in it) or a glob pattern.
      output: folder, made if missing.
      workdir: a run of ours; or:
      torch_checkpoint: a generator as the reference saved it.
      checkpoint: of a run: "latest", "best", or a position in examples.
      network: of a torch_checkpoint: a key of `models.networks.generators.REFERENCE_GENERATORS` that it has to be; None:
        whatever it is. Width, channels and norm are read from the file.
      norm_mode: what batch norm normalises with: "batch_statistics" of each single picture, or
        "moving_statistics". None: as the run says, or "batch_statistics". Nothing depends on it without
        batch norm.
      side_vector: of a run whose networks take numbers with each picture: "0.3,1" for all pictures, or the
        name of a class of its data set.
      raw: also write float32 .npy files.

    Returns:
      The pictures written (where one has neither 1 nor 3 channels, its .npy).

    Raises:
      ConfigurationError, data.errors.DataError: something given cannot be used.
    """
    if (workdir is None) == (torch_checkpoint is None):
        raise ConfigurationError("give one of --workdir=RUN and --torch_checkpoint=FILE: what translates")
    if network is not None and torch_checkpoint is None:
        raise ConfigurationError(f"--network={network}: goes with --torch_checkpoint; a run knows its own")
    if side_vector is not None and workdir is None:
        raise ConfigurationError(f"--side_vector={side_vector}: goes with --workdir; leave it out")
    targets = _targets(_found(input), output)
    if torch_checkpoint is not None:
        translator = translator_of_torch_file(
            os.path.expanduser(torch_checkpoint), network=network, norm_mode=norm_mode
        )
    else:
        translator = translator_of_run(
            workdir, checkpoint=checkpoint, norm_mode=norm_mode, side_vector=side_vector
        )
    for path in targets:  # all headers before any work
        _check(path, _kind_of(path), translator)
    try:
        tf.io.gfile.makedirs(output)
        written = [_translate_one(path, stem, translator, raw=raw) for path, stem in targets.items()]
    except (OSError, tf.errors.OpError) as error:
        raise ConfigurationError(
            f"--output={output}: cannot be written ({reason_of(error)}); choose another"
        ) from error
    count = "1 picture" if len(written) == 1 else f"{len(written)} pictures"
    print(f"translated {count} into {output} with {translator.description}")
    return written


def _found(pattern: str) -> list[str]:
    """The pictures that --input names, sorted."""
    pattern = os.path.expanduser(pattern)
    with reraise_read_errors(f"--input={pattern}"):
        if gfile.is_file(pattern):  # also where its name has the letters of a pattern
            return [pattern]
        if gfile.is_dir(pattern):
            paths = [os.path.join(pattern, name) for name in gfile.list_dir(pattern)]
            remedy = "give the folder with the pictures, or a pattern such as 'FOLDER/**/*.png'"
        else:
            paths = gfile.glob(pattern)
            remedy = "correct the path or the pattern"
        found = [path for path in paths if image_reader.is_image_name(path) and gfile.is_file(path)]
    if not found:
        raise ConfigurationError(f"--input={pattern}: no picture there; {remedy}")
    return found


def _targets(paths: Sequence[str], output: str) -> dict[str, str]:
    """Path of a picture -> path of what is made of it, without ending; no two alike."""
    sources = {}
    for path in paths:
        stem = os.path.join(output, os.path.splitext(os.path.basename(path))[0])
        if stem in sources:
            raise ConfigurationError(
                f"--input: {sources[stem]} and {path} would both become {stem}.png; translate them into "
                "different folders"
            )
        if any(_is_same(f"{stem}.png", other) for other in paths):
            raise ConfigurationError(f"--output={output}: would overwrite {path}; choose another folder")
        sources[stem] = path
    return {path: stem for stem, path in sources.items()}


def _is_same(path: str, other: str) -> bool:
    """Whether two paths are those of one file; the second one is there."""
    if gfile.is_url(path) or gfile.is_url(other):
        return path == other
    return os.path.exists(path) and os.path.samefile(path, other)


def _kind_of(path: str) -> image_reader.ImageKind:
    if is_video_name(path):
        raise ConfigurationError(f"{path}: raw video is not translated; extract its frames as PNG first")
    kind = image_reader.read_kind(
        image_reader.ImageRef(path), video=VideoFormat(), max_pixels=image_reader.MAX_PIXELS
    )
    if kind.value_range is None:
        raise ConfigurationError(f"{path}: floating-point pixels have no known range; convert it to 16 bits")
    return kind


def _check(path: str, kind: image_reader.ImageKind, translator: Translator) -> None:
    wanted = translator.input_channels
    if kind.channels != wanted and not (kind.channels == 1 and wanted == 3):
        what = f"{kind.channels} channels" + (" with transparency" if kind.alpha else "")
        raise ConfigurationError(
            f"{path}: has {what}, where the network takes {wanted}; convert it to {wanted}"
        )
    try:
        translator.check_size(kind.height, kind.width)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _translate_one(path: str, stem: str, translator: Translator, *, raw: bool) -> str:
    """Writes what is made of one picture; returns the path written."""
    kind, pixels, _ = image_reader.decode(
        image_reader.ImageRef(path), video=VideoFormat(), max_pixels=image_reader.MAX_PIXELS
    )
    low, high = kind.value_range
    picture = imaging.range_to_signed(pixels, low=low, high=high)  # [H, W, C]
    if picture.shape[-1] < translator.input_channels:  # grey, where colours are taken
        picture = tf.repeat(picture, translator.input_channels, axis=-1)
    translated = translator.translate(picture[tf.newaxis])[0]  # [H, W, C]
    channels = translated.shape[-1]
    if raw:
        array = io.BytesIO()
        np.save(array, tf.cast(translated, tf.float32).numpy())
        with tf.io.gfile.GFile(f"{stem}.npy", "wb") as file:
            file.write(array.getvalue())
    if channels in (1, 3):
        write_png(f"{stem}.png", translator.to_picture(translated))
    elif not raw:
        raise ConfigurationError(
            f"the network makes {channels} channels, which no picture shows; add --raw for .npy files"
        )
    return f"{stem}.{'png' if channels in (1, 3) else 'npy'}"


def define_flags(values: flags.FlagValues) -> None:
    for name, default, text in (
        ("input", None, "A picture, a folder of pictures, or a glob pattern (in quotes)."),
        ("output", None, "Folder for what is made of them."),
        ("workdir", None, "Run directory; or:"),
        ("torch_checkpoint", None, "A generator's *_net_*.pth of the PyTorch reference."),
        ("checkpoint", "latest", "Of a run: 'latest', 'best', or a position in examples."),
        ("network", None, "Of a torch_checkpoint: unet_128, unet_256, resnet_6blocks, resnet_9blocks, ..."),
        ("side_vector", None, "Of a run that takes it: numbers such as 0.3,1 for all pictures, or a class."),
        ("norm_mode", None, "Batch norm on 'batch_statistics' of the picture or on 'moving_statistics'."),
    ):
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_bool("raw", False, "Also write float32 [H, W, C] in [-1, 1] as .npy.", flag_values=values)


def main(values: flags.FlagValues) -> None:
    for name, example in (("input", "photo.png"), ("output", "translated")):
        if not values[name].value:
            raise ConfigurationError(f"no --{name} given, such as --{name}={example}")
    translate(
        input=values.input,
        output=os.path.expanduser(values.output),
        workdir=values.workdir,
        checkpoint=values.checkpoint,
        torch_checkpoint=values.torch_checkpoint,
        network=values.network,
        norm_mode=values.norm_mode,
        side_vector=values.side_vector,
        raw=values.raw,
    )


def run() -> None:
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
