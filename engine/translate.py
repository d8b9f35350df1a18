"""Translates pictures with a run's networks, or with a generator trained by the PyTorch reference.

  python -m engine.translate --workdir=runs/mine --input=PICTURES --output=DIR
  python -m engine.translate --torch_checkpoint=latest_net_G.pth --network=unet_256 --input=a.png --output=DIR

Each picture is translated whole and written as DIR/<its name>.png with 8 bits. --raw also writes the
network's output as .npy: float32 [H, W, C] in [-1, 1], in the colour space of its training.
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
from data.formats.image_info import ImageInfo
from data.formats.raw_video import VideoFormat, is_video_name
from engine.cli.program import run_program
from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.evaluation.sample_grid import write_png
from engine.inference.translator import Translator, translator_of_run, translator_of_torch_file
from engine.storage.file_errors import reraise_read_errors, reraise_write_errors


def translate(
    *,
    input: str,
    output: str,
    workdir: str | None = None,
    checkpoint: str = "latest",
    torch_checkpoint: str | None = None,
    network: str | None = None,
    norm_mode: str | None = None,
    side_vector: str | None = None,
    raw: bool = False,
) -> list[str]:
    """Translates pictures one by one. This is the whole program, for a notebook.

    Args:
      input: a picture, a folder (without its subfolders) or a glob pattern.
      output: folder for the results; made if missing.
      workdir: run directory. Give this or `torch_checkpoint`.
      checkpoint: of the run: "latest", "best", or a position in examples.
      torch_checkpoint: a generator that the reference saved.
      network: the architecture that `torch_checkpoint` must have, a key of
        `models.networks.generators.REFERENCE_GENERATORS`; None takes whatever the file holds. Width, channels
        and norm are read from the file.
      norm_mode: what batch norm normalises with: "batch_statistics" of each picture, or
        "moving_statistics". None is the run's setting, or "batch_statistics" for a `torch_checkpoint`.
      side_vector: side information for all pictures, if the run's networks take a vector: numbers such as
        "0.3,1", or the name of a class of its data set.
      raw: also write float32 .npy files.

    Returns:
      The paths of the pictures written; the .npy where the output has neither 1 nor 3 channels.

    Raises:
      ConfigurationError: a flag, the run or a picture cannot be used.
      engine.errors.NonFiniteOutputError: the network's output for a picture is not finite.
      data.errors.DataError: a picture or the run's data set cannot be read.
    """
    if (workdir is None) == (torch_checkpoint is None):
        raise ConfigurationError(
            "--workdir, --torch_checkpoint: need exactly one; give --workdir=RUN or --torch_checkpoint=FILE"
        )
    if network is not None and torch_checkpoint is None:
        raise ConfigurationError(f"--network={network}: goes with --torch_checkpoint; leave it out")
    if side_vector is not None and workdir is None:
        raise ConfigurationError(f"--side_vector={side_vector}: goes with --workdir; leave it out")
    stems = _output_stems(_find_pictures(input), output)
    if torch_checkpoint is not None:
        translator = translator_of_torch_file(
            os.path.expanduser(torch_checkpoint), network=network, norm_mode=norm_mode
        )
    elif workdir is not None:
        translator = translator_of_run(
            workdir, checkpoint=checkpoint, norm_mode=norm_mode, side_vector=side_vector
        )
    for path in stems:  # so that nothing is written if one of them cannot be translated
        _check(path, _image_info(path), translator)
    with reraise_write_errors(f"--output={output}", remedy="choose another folder"):
        tf.io.gfile.makedirs(output)
        written = [_translate_one(path, stem, translator, raw=raw) for path, stem in stems.items()]
    count = "1 picture" if len(written) == 1 else f"{len(written)} pictures"
    print(f"translated {count} into {output} with {translator.description}")
    return written


def _find_pictures(pattern: str) -> list[str]:
    """The sorted pictures that --input names."""
    pattern = os.path.expanduser(pattern)
    with reraise_read_errors(f"--input={pattern}"):
        if gfile.is_file(pattern):  # even if its name contains characters of a pattern
            return [pattern]
        if gfile.is_dir(pattern):
            paths = [os.path.join(pattern, name) for name in gfile.list_dir(pattern)]
            remedy = "give the folder with the pictures, or a pattern such as 'FOLDER/**/*.png'"
        else:
            # A folder such as "photos [2024]" may be part of a pattern.
            paths = gfile.glob(pattern) or gfile.glob(pattern.replace("[", "[[]"))
            remedy = "correct the path or the pattern"
        found = [path for path in paths if image_reader.is_image_name(path) and gfile.is_file(path)]
    if not found:
        raise ConfigurationError(f"--input={pattern}: no picture there; {remedy}")
    return found


def _output_stems(paths: Sequence[str], output: str) -> dict[str, str]:
    """Maps the path of each picture to that of its translation, without the extension; all differ."""
    sources: dict[str, str] = {}
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
    """Whether two paths, the second of which exists, are the same file."""
    if gfile.is_url(path) or gfile.is_url(other):
        return path == other
    return os.path.exists(path) and os.path.samefile(path, other)


def _image_info(path: str) -> ImageInfo:
    if is_video_name(path):
        raise ConfigurationError(f"{path}: raw video cannot be translated; extract its frames as PNG first")
    info = image_reader.read_info(
        image_reader.ImageRef(path), video=VideoFormat(), max_pixels=image_reader.MAX_PIXELS
    )
    _value_range(path, info)
    return info


def _value_range(path: str, info: ImageInfo) -> tuple[float, float]:
    if info.value_range is None:
        raise ConfigurationError(
            f"{path}: the range of floating-point pixels is not known; convert it to 16 bits"
        )
    return info.value_range


def _check(path: str, info: ImageInfo, translator: Translator) -> None:
    wanted = translator.input_channels
    if info.channels != wanted and not (info.channels == 1 and wanted == 3):
        what = f"{info.channels} channels" + (" with transparency" if info.alpha else "")
        raise ConfigurationError(
            f"{path}: has {what}, but the network takes {wanted}; convert it to {wanted}"
        )
    try:
        translator.check_size(info.height, info.width)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _translate_one(path: str, stem: str, translator: Translator, *, raw: bool) -> str:
    """Translates one picture; returns the path written."""
    info, pixels, _ = image_reader.decode(
        image_reader.ImageRef(path), video=VideoFormat(), max_pixels=image_reader.MAX_PIXELS
    )
    low, high = _value_range(path, info)
    picture = imaging.range_to_signed(pixels, low=low, high=high)  # [H, W, C]
    if picture.shape[-1] < translator.input_channels:  # grey to RGB
        picture = tf.repeat(picture, translator.input_channels, axis=-1)
    translated = translator.translate(picture[tf.newaxis])[0]  # [H, W, C]
    if not np.all(np.isfinite(translated)):
        raise NonFiniteOutputError(path)
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
            f"the network's output has {channels} channels, so it cannot be shown; add --raw for .npy files"
        )
    return f"{stem}.{'png' if channels in (1, 3) else 'npy'}"


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    for name, default, text in (
        ("input", None, "A picture, a folder of pictures, or a glob pattern (in quotes)."),
        ("output", None, "Folder for the translated pictures."),
        ("workdir", None, "Run directory. Give this or --torch_checkpoint."),
        ("torch_checkpoint", None, "A generator of the PyTorch reference, *_net_*.pth."),
        ("checkpoint", "latest", "Of the run: 'latest', 'best', or a position in examples."),
        ("network", None, "Of the torch_checkpoint: unet_128, unet_256, resnet_6blocks, resnet_9blocks, ..."),
        (
            "side_vector",
            None,
            "Side information for all pictures, if the run takes it: numbers such as 0.3,1, or a class.",
        ),
        ("norm_mode", None, "Batch norm on 'batch_statistics' of the picture or on 'moving_statistics'."),
    ):
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_bool("raw", False, "Also write float32 [H, W, C] in [-1, 1] as .npy.", flag_values=values)


def main(values: flags.FlagValues) -> None:
    """Runs the program with parsed flags."""
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
    """Runs the program from the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
