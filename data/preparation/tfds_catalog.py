"""Public data sets of TensorFlow Datasets: used as they are, or prepared by TFDS itself."""

from __future__ import annotations

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


def prepare_public(*, name: str, data_dir: gfile.Path, source: gfile.Path | None = None) -> Report:
    """Finds a data set that TFDS has prepared, or lets TFDS download and prepare it.

    Its files are used as they are, without a conversion. TFDS writes into data_dir only and downloads into
    data_dir/downloads; it resumes and cleans up after an interruption itself.

    Args:
      name: of the data set, with its configuration if there are several: "cycle_gan/horse2zebra".
      data_dir: folder of the prepared data sets.
      source: folder of a prepared data set, of one of its versions, or of the data sets that contain `name`;
        it is used in place.

    Returns:
      A `Report`; train with its data_dir.

    Raises:
      DataError: there is no such data set, it cannot be downloaded, or it is not stored as TFRecord files.
    """
    if source is not None:
        return Report.of(*_locate(name, source))
    data_dir = os.fspath(data_dir)
    if prepared_dataset.find_dataset(name, data_dir) is None:
        tfds_writer.check_data_dir(data_dir)
        _download(name, data_dir)
    return Report.of(name, data_dir)


def _locate(name: str, source: gfile.Path) -> tuple[str, str]:
    """(data set, data_dir) of a prepared data set anywhere."""
    source = os.fspath(source)
    source = source.rstrip("/") if gfile.is_url(source) else os.path.abspath(source)
    if not gfile.is_dir(source):
        raise DataError(
            f"{source}: no such folder; give the folder of a prepared data set, or leave source out"
        )
    version = tfds.core.Version.is_valid(os.path.basename(source))
    if version and gfile.exists(os.path.join(source, prepared_dataset.DESCRIPTION)):
        source = os.path.dirname(source)
    if prepared_dataset.find_dataset(name, source):
        return name, source
    data_dir = source.removesuffix(f"/{name}") or "/"
    if data_dir != source and prepared_dataset.find_dataset(name, data_dir):
        return name, data_dir
    raise DataError(
        f"{source}: holds no prepared data set {name!r}; give the folder NAME or NAME/CONFIG or their parent "
        "folder, and the name that TFDS uses"
    )


def _download(name: str, data_dir: str) -> None:
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
            what = "does not exist, and TFDS knows no data set of this name"
        else:
            what = f"cannot be used ({_first_line(error)})"
        raise DataError(
            f"data set {name!r} in {data_dir}: {what}; see https://www.tensorflow.org/datasets for the names"
        ) from error
    downloads = os.path.join(data_dir, "downloads")
    print(f"TFDS downloads {name!r} into {downloads} and prepares it; this may take minutes", flush=True)
    try:
        builder.download_and_prepare(download_dir=downloads)
    except _DOWNLOAD_ERRORS as error:
        raise DataError(
            f"data set {name!r}: could not be downloaded ({_first_line(error)}); check the network, or "
            f"prepare it on another machine and copy its folder to {os.path.join(data_dir, name)}"
        ) from error
    except ImportError as error:
        raise DataError(
            f"data set {name!r}: TFDS needs a further package for it ({_first_line(error)}); install it"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300] or type(error).__name__
