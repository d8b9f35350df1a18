"""Translates pictures with a run's networks, an exported one, or a generator of the PyTorch reference.

  python -m engine.translate --workdir=runs/mine --input=PICTURES --output=DIR
  python -m engine.translate --torch_checkpoint=latest_net_G.pth --network=unet_256 --input=a.png --output=DIR
  python -m engine.translate --model=exports/mine --input=PICTURES --output=DIR
  python -m engine.translate --workdir=runs/mine --input=clip.mp4 --output=translated.mp4

PICTURES is a picture, a folder with the folders in it, a pattern in quotes, or a .txt file with a path in
each line. Each picture is read as data.prepare would have read it for the run, and written as DIR/<its
relative path>.png with its size and the bits and values of the training targets. Of float targets, .tif has
the values and the .png is to look at. Sizes that the network does not take are padded, and the output is
cropped; large pictures are translated in tiles that overlap. --raw also writes the network's output as .npy:
float32 [H, W, C] in [-1, 1], in the colour space of its training. Pictures that cannot be translated are
listed and the others are translated; the exit code is then 2.
A video (.y4m, .yuv; .mp4 and others with PyAV) becomes a video if --output ends like the name of one, else a
folder of frames; pictures become the frames of a video, in order.
In a notebook: `from engine.translate import translate; translate(workdir=..., input=..., output=...)`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from absl import flags

from engine.cli.program import run_program
from engine.errors import ConfigurationError
from engine.inference.evaluation_mode import EvaluationMode
from engine.inference.exported_translator import translator_of_export
from engine.inference.latent_codes import latent_codes
from engine.inference.run_translator import translator_of_run
from engine.inference.torch_translator import translator_of_torch_file
from engine.inference.translator import Translator
from engine.pictures.comparison import strip_ending
from engine.pictures.counterparts import Counterparts
from engine.pictures.output_paths import are_written, output_stems
from engine.pictures.picture_log import PictureLog
from engine.pictures.picture_output import OutputFormat
from engine.pictures.picture_paths import SourcePicture, find_pictures
from engine.pictures.trained_size import AS_TRAINED, NONE
from engine.translation.limits import Limits
from engine.translation.network_runner import NetworkRunner
from engine.translation.picture_steps import Job
from engine.translation.picture_translation import PictureTranslation
from engine.translation.translation_flags import check_flags
from engine.translation.translation_run import translate_pictures
from engine.translation.video_settings import VideoSettings, check_video_flags, define_settings, settings_of
from engine.translation.video_translation import is_video, translate_video


def translate(
    *,
    input: str,
    output: str,
    workdir: str | None = None,
    checkpoint: str = "latest",
    torch_checkpoint: str | None = None,
    network: str | None = None,
    model: str | None = None,
    weights: str | None = None,
    norm_mode: str | None = None,
    dropout: bool = False,
    side_vector: str | None = None,
    side_map: str | None = None,
    direction: str | None = None,
    resize: str = NONE,
    samples: int | None = None,
    seed: int = 0,
    code_from: str | None = None,
    format: str = "png",
    raw: bool = False,
    compare: bool = False,
    target: str | None = None,
    skip_existing: bool = False,
    batch: int = 8,
    memory_gib: float = 2.0,
    tile: int | None = None,
    overlap: int | None = None,
    video: VideoSettings | None = None,
) -> list[str]:
    """Translates pictures. This is the whole program, for a notebook.

    Args:
      input: a picture, a video, a folder with the folders in it, a glob pattern, or a .txt file with the path
        of a picture in each line, relative to its own folder.
      output: folder for the results; made if missing.
      workdir: run directory. Give this, `torch_checkpoint` or `model`.
      checkpoint: of the run: "latest", "best", or a position in examples.
      torch_checkpoint: a generator that the reference saved.
      network: the architecture that `torch_checkpoint` must have, a key of
        `models.networks.generators.REFERENCE_GENERATORS`; None takes whatever the file holds. Width, channels
        and norm are read from the file.
      model: what `engine.export` wrote: its folder, or a SavedModel or .keras file in it.
      weights: "averaged", by EMA, or "raw", those in training; None: averaged where the run averages any.
      norm_mode: what batch norm normalises with: "batch_statistics" of each picture, or
        "moving_statistics". None is the run's setting, or "batch_statistics" for a `torch_checkpoint`.
      dropout: whether dropout is active. The mask of a picture depends on its number among all pictures.
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
      format: of the results: "png", "jpeg", "webp" or "tiff".
      raw: also write float32 .npy files.
      compare: also write strips that show input, output and target side by side.
      target: folder with the targets for these strips, of the same relative names; None shows none.
      skip_existing: leave out pictures all of whose files are there.
      batch: pictures of one size that each device translates at once, at most.
      memory_gib: for the tensors of the network, about: larger pictures are translated in tiles.
      tile: height and width of tiles in pixels; 0 never cuts pictures; None is what fits into the memory.
      overlap: pixels that a tile sees beyond its own part, on each side; None is what the network needs.
      video: how a video is read and written. One is translated if `input` is a video, or `output` ends like
        the name of one, such as clip.mp4: then it is that file.

    Returns:
      The path of the video written, or those of the pictures; the .npy where the output has neither 1 nor 3
      channels.

    Raises:
      ConfigurationError: a flag, the run or a picture cannot be used; all other pictures are translated.
      engine.errors.NonFiniteOutputError: the network's output for a picture is not finite; likewise.
      data.errors.DataError: the run's data set cannot be read.
    """
    given = locals()
    check_flags(given)
    limits = Limits(batch=batch, memory_gib=memory_gib, tile=tile, overlap=overlap)
    pictures = find_pictures(input, leave_out=output)
    paths = [picture.path for picture in pictures]
    makes_video = is_video(paths, output)
    check_video_flags(given, makes_video=makes_video)
    if torch_checkpoint is not None:
        translator = translator_of_torch_file(
            os.path.expanduser(torch_checkpoint), network=network, norm_mode=norm_mode
        )
    elif model is not None:
        translator = translator_of_export(model, side_vector=side_vector, side_map=side_map)
    else:
        translator = translator_of_run(
            workdir or "",
            checkpoint=checkpoint,
            mode=EvaluationMode(weights=weights, norm_mode=norm_mode, dropout=dropout),
            side_vector=side_vector,
            side_map=side_map,
            direction=direction,
        )
    size = translator.input.size if resize == AS_TRAINED else None
    codes = latent_codes(translator, size, samples=samples, seed=seed, code_from=code_from)
    runner = NetworkRunner(translator, limits, with_codes=codes != [None])
    if makes_video:
        settings = video or VideoSettings()
        return [translate_video(paths, output, runner, settings, size=size, code=codes[0])]
    made = OutputFormat(format=format, trained=translator.output.stored, raw=raw, shows=compare)
    targets = None if target is None else Counterparts(target, flag="target", what="target")
    others = [code_from] if code_from is not None else []
    jobs = _jobs(
        pictures,
        output,
        samples=samples,
        endings=made.endings(translator.output.channels) + ([strip_ending(format)] if compare else []),
        others=others + _files_beside(translator, targets),
        skip_existing=skip_existing,
    )
    log = PictureLog(len(jobs))
    if resize == AS_TRAINED and size is None:
        log.notes["not resized, because training did not resize pictures either (LOAD_SIZE = 0)"] = len(jobs)
    translation = PictureTranslation(
        translator,
        runner,
        size=size,
        codes=codes,
        output=made,
        compares=compare,
        targets=targets,
    )
    trained = translator.input.size if size is None else None
    written = translate_pictures(translation, jobs, output=output, log=log, trained=trained)
    log.show(f"into {output} with {translator.description}", tiles=translation.tiled.description)
    return written


def _files_beside(translator: Translator, targets: Counterparts | None) -> list[str]:
    """The files that are read beside the pictures."""
    maps = translator.side_maps
    return [*([] if maps is None else maps.paths), *([] if targets is None else targets.paths)]


def _jobs(
    pictures: Sequence[SourcePicture],
    output: str,
    *,
    samples: int | None,
    endings: Sequence[str],
    others: Sequence[str],
    skip_existing: bool,
) -> list[Job]:
    """What is to be translated, with the paths of the results; see `output_stems`."""
    stems = output_stems(pictures, output, samples=samples, endings=endings, others=others)
    jobs = [
        Job(position=position, source=source, stems=stems[source])
        for position, source in enumerate(pictures)
        if not (skip_existing and are_written(stems[source], endings))
    ]
    if skip_existing:
        print(f"skipped {len(pictures) - len(jobs)} of {len(pictures)} pictures, whose results are there")
    return jobs


_TEXTS = (
    ("input", None, "A picture, a video, a folder, a glob pattern (in quotes), or a .txt list of pictures."),
    ("output", None, "Folder for the translated pictures; or a video, such as clip.mp4."),
    ("workdir", None, "Run directory. Give this, --torch_checkpoint or --model."),
    ("model", None, "What engine.export wrote: its folder, or a SavedModel or .keras file in it."),
    ("torch_checkpoint", None, "A generator of the PyTorch reference, *_net_*.pth."),
    ("checkpoint", "latest", "Of the run: 'latest', 'best', or a position in examples."),
    ("network", None, "Of the torch_checkpoint: unet_128, unet_256, resnet_6blocks, resnet_9blocks, ..."),
    ("weights", None, "'averaged' by EMA, or 'raw', those in training. Averaged where the run averages any."),
    ("norm_mode", None, "Batch norm on 'batch_statistics' of the picture or on 'moving_statistics'."),
    ("side_vector", None, "Side information for all pictures, if the run takes it: 0.3,1, or a class."),
    ("side_map", None, "Folder with a map for each picture, of its name, if the run takes maps."),
    ("direction", None, "AtoB or BtoA, if the run translates both ways, as CycleGAN does."),
    ("resize", NONE, "'as_trained' resizes pictures to the size of the training, and the results back."),
    ("code_from", None, "Picture such as the outputs, whose latent code to use (BicycleGAN)."),
    ("format", "png", "Of the results: png, jpeg, webp or tiff. jpeg and webp have 8 bits."),
    ("target", None, "With --compare: folder with the targets, of the same relative names."),
)
_NUMBERS = (
    ("samples", None, "Outputs for each picture, for random codes (BicycleGAN)."),
    ("seed", 0, "Of the codes of --samples."),
    ("batch", 8, "Pictures of one size that each device translates at once, at most."),
    ("tile", None, "Height and width of tiles; 0 never cuts pictures. By default what fits into the memory."),
    ("overlap", None, "Pixels that a tile sees beyond its own part. By default what the network needs."),
)
_SWITCHES = (
    ("dropout", "Dropout is active, as when the reference tests pix2pix."),
    ("raw", "Also write float32 [H, W, C] in [-1, 1] as .npy."),
    ("compare", "Also write strips: input, output, target."),
    ("skip_existing", "Leave out pictures whose results are there."),
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    for name, text, help_text in _TEXTS:
        flags.DEFINE_string(name, text, help_text, flag_values=values)
    for name, number, help_text in _NUMBERS:
        flags.DEFINE_integer(name, number, help_text, flag_values=values)
    for name, help_text in _SWITCHES:
        flags.DEFINE_bool(name, False, help_text, flag_values=values)
    flags.DEFINE_float(
        "memory_gib", 2.0, "For the tensors of the network: larger pictures are cut.", flag_values=values
    )
    define_settings(values)


def main(values: flags.FlagValues) -> None:
    """Runs the program with parsed flags."""
    for name, example in (("input", "photo.png"), ("output", "translated")):
        if not values[name].value:
            raise ConfigurationError(f"no --{name} given, such as --{name}={example}")
    names = [name for name, *_ in (*_TEXTS, *_NUMBERS, *_SWITCHES)]
    given = {name: values[name].value for name in [*names, "memory_gib"]}
    translate(**given | {"output": os.path.expanduser(values.output), "video": settings_of(values)})


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
