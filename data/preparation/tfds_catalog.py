"""Public data sets of TensorFlow Datasets: taken as they are, or prepared by TFDS itself."""

import os

import tensorflow_datasets as tfds
from etils import epath

from data import gfile
from data.errors import DataError
from data.preparation import tfds_writer
from data.preparation.report import Report
from data.tfrecords import prepared_dataset

_DOWNLOAD_ERRORS = (
    OSError,  # also that of the requests package
    tfds.download.DownloadError,
    tfds.download.download_manager.NonMatchingChecksumError,
    tfds.download.extractor.ExtractError,
)


def prepare_public(*, name, data_dir, source=None):
    """Finds a data set that TFDS has prepared, or has TFDS download and prepare it.

    Its files are read as they are; nothing is copied into another format. TFDS writes into data_dir only,
    downloads into data_dir/downloads, and itself resumes and cleans up what was interrupted.

    Args:
      name: of the data set, with its configuration if it has several: "cycle_gan/horse2zebra".
      data_dir: folder of the prepared data sets.
      source: a prepared data set's own folder, that of one of its versions, or the folder of the data
        sets in which `name` is; it is used where it lies.

    Returns:
      A `Report`; its data_dir is the one to train with.

    Raises:
      DataError: there is no such data set, it is not there and cannot be downloaded, or it is not
        stored as TFRecord files.
    """
    if source is not None:
        return Report.of(*_locate(name, source))
    data_dir = os.fspath(data_dir)
    if prepared_dataset.find_dataset(name, data_dir) is None:
        tfds_writer.check_data_dir(data_dir)
        _download(name, data_dir)
    return Report.of(name, data_dir)


def _locate(name, source):
    """(data set, data_dir) of a prepared data set that lies anywhere."""
    source = os.fspath(source)
    source = source.rstrip("/") if gfile.is_url(source) else os.path.abspath(source)
    if not gfile.is_dir(source):
        raise DataError(f"{source}: no such folder; give that of a prepared data set, or leave source out")
    version = tfds.core.Version.is_valid(os.path.basename(source))
    if version and gfile.exists(os.path.join(source, prepared_dataset.DESCRIPTION)):
        source = os.path.dirname(source)
    if prepared_dataset.find_dataset(name, source):
        return name, source
    data_dir = source.removesuffix(f"/{name}") or "/"
    if data_dir != source and prepared_dataset.find_dataset(name, data_dir):
        return name, data_dir
    raise DataError(
        f"{source}: holds no prepared data set {name!r}; give the folder NAME, NAME/CONFIG or the one they "
        "are in, and the name as TFDS has it"
    )


def _download(name, data_dir):
    try:
        epath.Path(data_dir)
    except KeyError as error:
        raise DataError(
            f"data set {name!r}: TFDS writes to a disk or to gs://, not to {data_dir}; prepare it there and "
            "copy its folder"
        ) from error
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="tfrecord")
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        if isinstance(error, tfds.core.DatasetNotFoundError):
            what = "is not there, and TFDS knows no data set of this name"
        else:
            what = f"cannot be used ({_first_line(error)})"
        raise DataError(
            f"data set {name!r} in {data_dir}: {what}; see https://www.tensorflow.org/datasets for the names"
        ) from error
    downloads = os.path.join(data_dir, "downloads")
    print(f"TFDS downloads {name!r} into {downloads} and prepares it; it tries for minutes", flush=True)
    try:
        builder.download_and_prepare(download_dir=downloads)
    except _DOWNLOAD_ERRORS as error:
        raise DataError(
            f"data set {name!r}: could not be downloaded ({_first_line(error)}); check the network, or "
            f"prepare it on another machine and copy its folder to {os.path.join(data_dir, name)}"
        ) from error
    except ImportError as error:
        raise DataError(
            f"data set {name!r}: TFDS needs another package for it ({_first_line(error)}); install it"
        ) from error


def _first_line(error):
    return str(error).strip().split("\n")[0][:300] or type(error).__name__
