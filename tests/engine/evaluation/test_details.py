"""Evaluations image by image: intervals, tables, contact sheets, comparisons."""

import csv
import dataclasses
import io

import numpy as np
import pytest

from engine.errors import ConfigurationError
from engine.evaluation.comparison import compare, comparison_table
from engine.evaluation.contact_sheet import Extremes, ShownImage, contact_sheet
from engine.evaluation.image_table import image_table
from engine.evaluation.intervals import mean_interval
from engine.evaluation.results import Evaluation, ImageMetrics
from engine.evaluation.text_table import table

METRIC_NAMES = ("mae", "mse", "rmse", "psnr_db", "ssim")


def evaluation(psnr_db, *, names=None, value_range=(0.0, 255.0), identical=0):
    psnr_db = np.asarray(psnr_db, np.float64)
    values = {name: psnr_db / (1 + number) for number, name in enumerate(METRIC_NAMES)} | {"psnr_db": psnr_db}
    return Evaluation(
        examples=len(psnr_db),
        names=tuple(f"p{n}" for n in range(len(psnr_db))) if names is None else names,
        value_range=value_range,
        translations=ImageMetrics(values=values, identical=identical),
    )


def test_the_interval_of_a_mean_is_that_of_student_for_normal_values():
    values = np.random.default_rng(1).normal(20, 3, 200)
    low, high = mean_interval(values)
    half = 1.972 * values.std(ddof=1) / np.sqrt(200)  # the 97.5 % quantile of Student's t for 199 degrees
    assert low == pytest.approx(values.mean() - half, abs=0.06)
    assert high == pytest.approx(values.mean() + half, abs=0.06)
    assert (low, high) == mean_interval(values)


def test_the_interval_holds_the_mean_of_skewed_values_as_often_as_it_says():
    draws = np.random.default_rng(2)
    intervals = [mean_interval(draws.exponential(1, 60)) for _ in range(60)]
    held = np.mean([low <= 1 <= high for low, high in intervals])
    assert 0.85 <= held <= 1  # 95 %, give or take three standard errors


def test_intervals_of_no_sample_and_of_equal_values():
    assert mean_interval(np.array([3.0])) is None
    assert mean_interval(np.array([3.0, 3.0, 3.0])) == (3.0, 3.0)


def test_the_table_of_images_holds_all_digits():
    found = evaluation(np.random.default_rng(3).normal(20, 3, 7), names=('a,"b"', *"cdefgh"))
    rows = list(csv.DictReader(io.StringIO(image_table(found))))
    assert list(rows[0]) == ["name", "example", *METRIC_NAMES]
    assert [row["name"] for row in rows] == list(found.names)
    for name in METRIC_NAMES:
        np.testing.assert_array_equal([float(row[name]) for row in rows], found.image_values[name])
        assert np.mean([float(row[name]) for row in rows]) == found.metrics[name]


def test_the_text_table_counts_identical_images_and_names_its_scale():
    text = table(evaluation([20, 100, 30], identical=1, value_range=(0, 65535)), split="test")
    assert "on [0, 65535]" in text and "identical: 1 of 3" in text
    assert "identical" not in table(evaluation([20, 21]), split="test")


def test_extremes_are_the_ends_of_the_sorted_values():
    values = np.random.default_rng(4).permutation(30)
    extremes = Extremes(count=3)
    for example, value in enumerate(values):
        extremes.add(ShownImage(value=value, example=example, name="", columns={}))
    order = np.argsort(values)
    assert [image.example for image in extremes.worst] == list(order[:3])
    assert [image.example for image in extremes.best] == list(order[::-1][:3])


def test_an_image_is_shown_once():
    extremes = Extremes(count=4)
    for example in range(5):
        extremes.add(ShownImage(value=example, example=example, name="", columns={}))
    shown = [image.example for image in [*extremes.worst, *extremes.best]]
    assert sorted(shown) == [0, 1, 2, 3, 4]


def test_a_contact_sheet_shows_every_picture():
    draws = np.random.default_rng(5)
    pictures = draws.integers(0, 256, (3, 2, 20, 30, 3), np.uint8)
    extremes = Extremes(count=2)
    for example, (output, target) in enumerate(pictures):
        columns = {"input": output[::2, ::2, :1], "output": output, "target": target}
        extremes.add(ShownImage(value=10.0 + example, example=example, name=f"p{example}", columns=columns))
    sheet = contact_sheet(extremes)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    for picture in pictures.reshape(-1, 20, 30, 3):
        windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)
        assert np.any(np.all(windows == picture, axis=(-3, -2, -1)))


def test_paired_differences_tell_apart_what_single_intervals_do_not():
    draws = np.random.default_rng(6)
    hard = draws.normal(20, 5, 40)  # how hard an image is, for both
    first, second = evaluation(hard), evaluation(hard + 0.3 + draws.normal(0, 0.1, 40))
    assert mean_interval(first.image_values["psnr_db"])[1] > mean_interval(second.image_values["psnr_db"])[0]
    found = {each.metric: each for each in compare(first, second, names=("A", "B"))}["psnr_db"]
    assert found.verdict == "second"
    assert found.mean == pytest.approx(found.second - found.first) == pytest.approx(0.3, abs=0.05)
    assert found.interval[0] < found.mean < found.interval[1] and found.second_better > 0.9
    of_errors = {each.metric: each for each in compare(first, second, names=("A", "B"))}["mae"]
    assert of_errors.verdict == "first"  # lower is better
    assert "B is better" in comparison_table([found], names=("A", "B"))
    same = compare(first, evaluation(hard + draws.normal(0, 1, 40)), names=("A", "B"))
    assert {each.metric: each for each in same}["psnr_db"].verdict == "undecided"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (evaluation([20.0, 21.0], names=("x", "y")), "different images"),
        (evaluation([20.0, 21.0], value_range=(0, 65535)), r"\[0, 255\] and \[0, 65535\]"),
        (Evaluation(examples=2, names=("p0", "p1")), "no metric in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(second, message):
    with pytest.raises(ConfigurationError, match=message):
        compare(evaluation([20.0, 21.0]), second, names=("A", "B"))


def test_a_table_of_one_image_says_what_it_cannot_tell():
    one = Evaluation(
        examples=1,
        translations=ImageMetrics(values={name: np.ones(1) for name in METRIC_NAMES}),
        extractor="random features 1",
    )
    first, *_, last = table(one, split="PHOTOS -> DRAWINGS").splitlines()
    assert first == "PHOTOS -> DRAWINGS: 1 image; metrics on [0, 255]"
    assert last == "KID and FID: not measured, since they need two images on each side"
    unpaired = dataclasses.replace(one, translations=None)
    assert table(unpaired, split="test").splitlines() == [
        "test: 1 image, unpaired: there is no target to compare with",
        last,
    ]
