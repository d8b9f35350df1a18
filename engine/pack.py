"""Packs a run into one .tar that is unpacked, used and continued elsewhere; and unpacks it.

  python -m engine.pack --workdir=runs/mine --output=mine.tar
  python -m engine.pack --workdir=runs/mine --output=mine.tar --data --wheels=cpu
  python -m engine.pack --unpack=mine.tar --output=runs/mine

--part=all packs the whole run, --part=latest what training needs to continue, --part=best what evaluation and
translation need: the best checkpoint, which training would then continue from. --data adds the prepared data
set. --wheels adds the pinned packages and the files of the project, for a machine without a network. A run
that is being trained is packed as of its newest checkpoint.
Unpacking verifies everything, and writes only into --output, which must be new or empty.
In Python: `from engine.pack import pack, unpack`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import tempfile
from collections.abc import Iterator

from absl import flags

from data import gfile
from data.tfrecords.prepared_dataset import open_dataset
from engine.cli.program import run_program
from engine.errors import ConfigurationError
from engine.gin_config.loader import ROOT
from engine.packing import archive_reader, wheelhouse
from engine.packing.archive_writer import write_archive
from engine.packing.manifest import Manifest
from engine.packing.run_files import PARTS, RunFiles, Source, choose_files, files_in, name_in
from engine.packing.run_settings import data_setting, needed_elsewhere
from engine.packing.wheelhouse import CHECKOUT, LOCKS, REQUIREMENTS, WHEELS
from engine.storage.file_errors import reraise_read_errors
from engine.storage.run_directory import RunDirectory

_DATASETS = "datasets"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packages:
    """The packages that a packed run takes along.

    Attributes:
      lock: "cpu", "gpu" or "tpu".
      python_version: of the machine that will install them, such as "3.12"; None is that of this process.
      platform: its tag, such as "manylinux_2_31_x86_64"; None is this machine's.
    """

    lock: str
    python_version: str | None = None
    platform: str | None = None


def pack(
    *,
    workdir: str,
    output: str,
    part: str = "all",
    data: bool = False,
    wheels: Packages | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Packs a run into an archive.

    Args:
      workdir: run directory.
      output: path of the archive; it may be in an object store.
      part: "all", "latest" or "best".
      data: add the prepared data set.
      wheels: add packages and the files of the project.
      overwrite: replace an existing archive.

    Returns:
      What the archive holds.

    Raises:
      ConfigurationError: there is no such run, or something cannot be read, downloaded or written.
      data.errors.DataError: the data set is missing or damaged.
    """
    run = RunDirectory(workdir)
    output = os.path.expanduser(output)
    with reraise_read_errors(f"--output={output}"):
        if gfile.is_dir(output) or (gfile.exists(output) and not overwrite):
            raise ConfigurationError(
                f"--output={output}: exists already; choose another name, or replace it with --overwrite"
            )
    if wheels is not None:
        wheelhouse.target_environment(wheels.python_version, wheels.platform)  # refuses before any work
    with choose_files(run, part=part) as chosen:
        _print_notes(run, chosen, part)
        sources = chosen.sources + (_data_sources(run) if data else [])
        with _packages(wheels) as more:
            return write_archive(sources + more, output, part=part, examples=chosen.examples)


def unpack(*, archive: str, output: str) -> Manifest:
    """Unpacks an archive into a new directory; see `archive_reader.unpack`."""
    return archive_reader.unpack(os.path.expanduser(archive), os.path.expanduser(output))


def _print_notes(run: RunDirectory, chosen: RunFiles, part: str) -> None:
    if chosen.owner is not None:
        print(
            f"{run.path}: {chosen.owner} trains there, or did not end properly; packing the run as of "
            f"its newest checkpoint, at {chosen.examples} examples"
        )
    others = [name for name in chosen.left_out if name not in (_DATASETS, WHEELS, CHECKOUT)]
    if part == "all" and others:
        print(f"not packed, because not files of a run: {', '.join(others)}")
    if needed := needed_elsewhere(run.read_config() or ""):
        print(f"not packed, but named in config.gin: {', '.join(needed)}")


def _data_sources(run: RunDirectory) -> list[Source]:
    """The files of the data set of a run."""
    setting = data_setting(run.read_config() or "")
    if setting is None:
        raise ConfigurationError(
            f"--data: the data of {run.path} are no data set of data.prepare; copy them yourself"
        )
    data_dir = os.path.expanduser(setting.data_dir)
    directory = open_dataset(setting.dataset, data_dir).directory
    below = name_in(data_dir, directory)
    with reraise_read_errors(directory):
        paths = files_in(directory)
    return [Source(name=f"{_DATASETS}/{below}/{name_in(directory, path)}", path=path) for path in paths]


@contextlib.contextmanager
def _packages(wheels: Packages | None) -> Iterator[list[Source]]:
    """The packages and the files of the project, as long as the block runs."""
    if wheels is None:
        yield []
        return
    untracked = wheelhouse.untracked_files(ROOT)
    if untracked:
        print(f"not packed, because git does not track: {', '.join(untracked[:5])} ({len(untracked)} files)")
    with tempfile.TemporaryDirectory(prefix="gantry_wheels_") as folder:
        wheelhouse.download_wheels(
            os.path.join(ROOT, f"requirements-{wheels.lock}.lock"),
            folder,
            python_version=wheels.python_version,
            platform=wheels.platform,
        )
        yield wheelhouse.wheel_sources(folder) + wheelhouse.checkout_sources(ROOT)


def _packed_text(packed: Manifest, *, workdir: str, output: str) -> str:
    """What was packed, and how to unpack it."""
    unpack_command = shlex.join(["python", "-m", "engine.pack", f"--unpack={output}", "--output=DIRECTORY"])
    return f"packed {workdir} into {output}: {_summary(packed)}\n  unpack     {unpack_command}"


def _unpacked_text(packed: Manifest, *, archive: str, output: str) -> str:
    """What was unpacked, and the commands that go on from there."""
    lines = [f"unpacked {archive} into {output}: {_summary(packed)}"]
    directory = output
    if packed.holds(WHEELS):
        directory = os.path.abspath(output)
        wheels = os.path.join(directory, WHEELS)
        install = ["python", "-m", "pip", "install", "--no-index", f"--find-links={wheels}"]
        lines.append(f"  install    {shlex.join([*install, '-r', os.path.join(wheels, REQUIREMENTS)])}")
        lines.append(f"  go to      cd {shlex.quote(os.path.join(directory, CHECKOUT))}")
    workdir = f"--workdir={directory}"
    train = ["python", "-m", "engine.train", f"--gin_file={os.path.join(directory, 'config.gin')}", workdir]
    evaluate = ["python", "-m", "engine.evaluate", workdir]
    if packed.holds(_DATASETS):
        data_dir = os.path.join(os.path.abspath(output), _DATASETS)
        evaluate.append(f"--data_dir={data_dir}")
        if setting := data_setting(RunDirectory(output).read_config() or ""):
            quoted = repr(data_dir) if {'"', "\\"} & set(data_dir) else f'"{data_dir}"'
            train.append(f"--gin_param={setting.data_dir_name} = {quoted}")
    lines.append(f"  continue   {shlex.join(train)}")
    lines.append(f"  evaluate   {shlex.join(evaluate)}")
    return "\n".join(lines)


def _summary(packed: Manifest) -> str:
    members = packed.members.values()
    mib = sum(file.bytes for file in members) / 2**20
    return f"{len(packed.files)} files, {mib:.1f} MiB, {packed.part} of the run at {packed.examples} examples"


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the program."""
    flags.DEFINE_string("workdir", None, "Run directory to pack.", flag_values=values)
    flags.DEFINE_string("unpack", None, "Archive to unpack instead.", flag_values=values)
    flags.DEFINE_string(
        "output", None, "The archive to write, or the new directory to unpack into.", flag_values=values
    )
    flags.DEFINE_enum(
        "part",
        "all",
        PARTS,
        "'all': the whole run. 'latest': what training needs to continue. 'best': what evaluation and "
        "translation need, with the best checkpoint.",
        flag_values=values,
    )
    flags.DEFINE_bool("data", False, "Also pack the prepared data set.", flag_values=values)
    flags.DEFINE_enum(
        "wheels",
        None,
        LOCKS,
        "Also pack the pinned packages of this lock, which are downloaded, and the files of the project.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "python_version", None, "With --wheels: of the other machine, such as 3.12.", flag_values=values
    )
    flags.DEFINE_string(
        "platform",
        None,
        "With --wheels: of the other machine, such as manylinux_2_31_x86_64.",
        flag_values=values,
    )
    flags.DEFINE_bool("overwrite", False, "Replace an archive that exists.", flag_values=values)


def main(values: flags.FlagValues) -> None:
    """Packs or unpacks as the flags say."""
    if not values.output:
        raise ConfigurationError("no --output given: the archive to write, or the directory to unpack into")
    if values.unpack is not None:
        packing = ("workdir", "part", "data", "wheels", "python_version", "platform", "overwrite")
        if given := [name for name in packing if values[name].present]:
            raise ConfigurationError(f"--{given[0]}: is for packing; leave it out with --unpack")
        packed = unpack(archive=values.unpack, output=values.output)
        print(_unpacked_text(packed, archive=values.unpack, output=values.output))
        return
    if not values.workdir:
        raise ConfigurationError("no --workdir given; name the run: --workdir=runs/NAME")
    wheels = None
    if values.wheels is not None:
        wheels = Packages(lock=values.wheels, python_version=values.python_version, platform=values.platform)
    elif values.python_version is not None or values.platform is not None:
        raise ConfigurationError("--python_version, --platform: are for packages; also give --wheels")
    packed = pack(
        workdir=values.workdir,
        output=values.output,
        part=values.part,
        data=values.data,
        wheels=wheels,
        overwrite=values.overwrite,
    )
    print(_packed_text(packed, workdir=values.workdir, output=values.output))


def run() -> None:
    """Runs the program from the command line."""
    run_program(main, define_flags)


if __name__ == "__main__":
    run()
