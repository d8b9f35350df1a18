"""Translates pictures with a run's networks, or with a generator trained by the PyTorch reference.

  python -m engine.translate --workdir=runs/mine --input=PICTURES --output=DIR
  python -m engine.translate --torch_checkpoint=latest_net_G.pth --network=unet_256 --input=a.png --output=DIR

Each picture is read as data.prepare would have read it for the run, translated whole, and written as
DIR/<its name>.png with the bits and values of the training targets. Of float targets, DIR/<its name>.tif has
the values and the .png is to look at. --raw also writes the network's output as .npy: float32 [H, W, C] in
[-1, 1], in the colour space of its training. Pictures that cannot be translated are listed and the others
are translated; the exit code is then 2.
In a notebook: `from engine.translate import translate; translate(workdir=..., input=..., output=...)`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import tensorflow as tf
from absl import flags

from data import gfile
from data.errors import DataError
from engine.cli.program import run_program
from engine.errors import ConfigurationError, NonFiniteOutputError
from engine.inference.picture_log import PictureLog
from engine.inference.picture_paths import find_pictures, output_stems
from engine.inference.picture_translation import latent_codes, translated_files
from engine.inference.run_translator import translator_of_run
from engine.inference.torch_translator import translator_of_torch_file
from engine.inference.trained_size import AS_TRAINED, NONE, RESIZES
from engine.storage.file_errors import reraise_write_errors


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
    side_map: str | None = None,
    direction: str | None = None,
    resize: str = NONE,
    samples: int | None = None,
    seed: int = 0,
    code_from: str | None = None,
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
      side_map: folder with a map for each picture, of its name and size, if the run's networks take maps.
      direction: "AtoB" or "BtoA", for runs that translate both ways (CycleGAN); None is that of the run.
      resize: "none" translates pictures at their size; "as_trained" resizes them to the size of the training,
        as in evaluation, and the results back.
      samples: outputs for each picture, for random codes, if the run's networks take a code (BicycleGAN).
        None is one output for the code 0.
      seed: of the codes; the same for all pictures.
      code_from: a picture such as the outputs, whose code is used for all pictures.
      raw: also write float32 .npy files.

    Returns:
      The paths of the pictures written; the .npy where the output has neither 1 nor 3 channels.

    Raises:
      ConfigurationError: a flag, the run or a picture cannot be used; all other pictures are translated.
      engine.errors.NonFiniteOutputError: the network's output for a picture is not finite; likewise.
      data.errors.DataError: the run's data set cannot be read.
    """
    _check_flags(
        workdir,
        torch_checkpoint,
        resize,
        samples,
        seed,
        of_run={
            "side_vector": side_vector,
            "side_map": side_map,
            "direction": direction,
            "samples": samples,
            "code_from": code_from,
        },
        of_file={"network": network},
    )
    paths = output_stems(find_pictures(input), output, samples=samples)
    if torch_checkpoint is not None:
        translator = translator_of_torch_file(
            os.path.expanduser(torch_checkpoint), network=network, norm_mode=norm_mode
        )
    else:
        translator = translator_of_run(
            workdir or "",
            checkpoint=checkpoint,
            norm_mode=norm_mode,
            side_vector=side_vector,
            side_map=side_map,
            direction=direction,
        )
    size = translator.input.size if resize == AS_TRAINED else None
    codes = latent_codes(translator, size, samples=samples, seed=seed, code_from=code_from)
    log = PictureLog(len(paths))
    if resize == AS_TRAINED and size is None:
        log.notes["not resized, because training did not resize pictures either (LOAD_SIZE = 0)"] = len(paths)
    written: list[str] = []
    for path, stems in paths.items():
        try:
            picture = translator.input.read(path)
            maps = translator.side_maps
            beside = None if maps is None else maps.read(path, picture)
            files = list(translated_files(path, picture, beside, translator, size, codes, raw=raw))
        except (DataError, ConfigurationError, NonFiniteOutputError) as error:
            log.refused.append(error)
            continue
        log.add_notes(picture, beside, translator.input.size if size is None else None)
        written += [_write(stem, contents, output) for stem, contents in zip(stems, files, strict=True)]
    log.show(f"into {output} with {translator.description}")
    return written


def _check_flags(
    workdir: str | None,
    torch_checkpoint: str | None,
    resize: str,
    samples: int | None,
    seed: int,
    *,
    of_run: Mapping[str, object],
    of_file: Mapping[str, object],
) -> None:
    """Raises ConfigurationError for flags that are out of range or exclude each other."""
    if (workdir is None) == (torch_checkpoint is None):
        raise ConfigurationError(
            "--workdir, --torch_checkpoint: need exactly one; give --workdir=RUN or --torch_checkpoint=FILE"
        )
    wrong, where = (of_file, "--torch_checkpoint") if torch_checkpoint is None else (of_run, "--workdir")
    for name, value in wrong.items():
        if value is not None:
            raise ConfigurationError(f"--{name}={value}: goes with {where}; leave it out")
    if resize not in RESIZES:
        raise ConfigurationError(f"--resize={resize}: unknown; use one of {', '.join(RESIZES)}")
    if resize != NONE and torch_checkpoint is not None:
        raise ConfigurationError(f"--resize={resize}: goes with --workdir; leave it out")
    if samples is not None and samples < 1:
        raise ConfigurationError(f"--samples={samples}: must be at least 1; raise it")
    if not 0 <= seed < 2**31:
        raise ConfigurationError(f"--seed={seed}: must be from 0 to 2**31 - 1; change it")
    if seed and samples is None:
        raise ConfigurationError(f"--seed={seed}: goes with --samples; give both, or leave it out")
    if samples is not None and of_run["code_from"] is not None:
        raise ConfigurationError(
            f"--samples={samples}, --code_from={of_run['code_from']}: exclude each other; give one of them"
        )


def _write(stem: str, files: Mapping[str, bytes], output: str) -> str:
    """Writes the files of a translation; returns the path of the first."""
    with reraise_write_errors(f"--output={output}", remedy="choose another folder"):
        with gfile.new_dir(output):
            for extension, content in files.items():
                with tf.io.gfile.GFile(stem + extension, "wb") as file:
                    file.write(content)
    return stem + next(iter(files))


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
        ("side_map", None, "Folder with a map for each picture, of its name, if the run takes maps."),
        ("norm_mode", None, "Batch norm on 'batch_statistics' of the picture or on 'moving_statistics'."),
        ("direction", None, "AtoB or BtoA, if the run translates both ways, as CycleGAN does."),
        (
            "resize",
            NONE,
            "'as_trained' resizes pictures to the size of the training, and the results back.",
        ),
        ("code_from", None, "Picture such as the outputs, whose latent code to use (BicycleGAN)."),
    ):
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_integer(
        "samples", None, "Outputs for each picture, for random codes (BicycleGAN).", flag_values=values
    )
    flags.DEFINE_integer("seed", 0, "Of the codes of --samples.", flag_values=values)
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
        side_map=values.side_map,
        direction=values.direction,
        resize=values.resize,
        samples=values.samples,
        seed=values.seed,
        code_from=values.code_from,
        raw=values.raw,
    )


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
