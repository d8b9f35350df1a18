"""From --grid and --case to the runs of a sweep."""

import pytest

from engine.errors import ConfigurationError
from engine.sweeps.points import parse_case, parse_grid, points, split_outside_quotes


def test_every_combination_is_a_run_with_a_readable_name():
    axes, runs = points(
        grids=["BATCH_SCHEDULE = [1, '0:1, 40ep:2']", "schedules.LinearDecay.decay = ['50%', \"3ep\"]"],
        cases=["small: LOAD_SIZE = 72; CROP_SIZE = 64", ""],
    )
    assert [axis.name for axis in axes] == ["BATCH_SCHEDULE", "schedules.LinearDecay.decay", "case"]
    assert len(runs) == 8 and len({run.name for run in runs}) == 8
    assert runs[0].name == "BATCH_SCHEDULE=1,LinearDecay.decay=50,small"
    assert runs[-1].name == "BATCH_SCHEDULE=0-1,-40ep-2,LinearDecay.decay=3ep,as_given"
    assert runs[4].gin_params == (
        "BATCH_SCHEDULE = '0:1, 40ep:2'",
        "schedules.LinearDecay.decay = '50%'",
        "LOAD_SIZE = 72",
        "CROP_SIZE = 64",
    )
    assert runs[4].labels == {
        "BATCH_SCHEDULE": "0:1, 40ep:2",
        "schedules.LinearDecay.decay": "50%",
        "case": "small",
    }


def test_values_may_have_commas_quotes_and_brackets():
    axis = parse_grid("AUGMENTATIONS = [[], [@geometry.Rotation(), @colour.Grey()], 'a\\'], [b']")
    assert [choice.gin_params[0] for choice in axis.choices] == [
        "AUGMENTATIONS = []",
        "AUGMENTATIONS = [@geometry.Rotation(), @colour.Grey()]",
        "AUGMENTATIONS = 'a\\'], [b'",
    ]
    assert split_outside_quotes("a = '1;2'; b = \"';\";c", ";") == ["a = '1;2'", 'b = "\';"', "c"]


def test_a_case_may_add_gin_files_and_gets_a_name():
    assert parse_case("gs://b/augmentations.gin; NORM = 'batch'").label == "augmentations,NORM=batch"
    case = parse_case("colour: gin/augmentations.gin; a.B.c = '.gin'")
    assert (case.label, case.gin_files) == ("colour", ("gin/augmentations.gin",))
    assert case.gin_params == ("a.B.c = '.gin'",)


def test_names_that_would_be_the_same_or_too_long_get_a_digest():
    _, runs = points(grids=["DATASET = ['a b', 'a/b', 'c', 'C']"], cases=[])
    names = [run.name for run in runs]
    assert len({name.lower() for name in names}) == 4
    assert all("/" not in name for name in names)
    _, (long, _) = points(grids=[f"DATASET = ['{'x' * 300}', 'y']"], cases=[])
    assert len(long.name) < 140
    # The name does not depend on the other values.
    assert points(grids=[f"DATASET = ['z', '{'x' * 300}']"], cases=[])[1][1].name == long.name


@pytest.mark.parametrize(
    "grids, cases, said",
    [
        ([], [], "BATCH_SCHEDULE = [1, 4]"),
        (["BATCH_SCHEDULE = 1, 4"], [], "NAME = [VALUE, ...]"),
        (["BATCH_SCHEDULE = []"], [], "has no value"),
        (["BATCH_SCHEDULE = [1, 1]"], [], "one twice"),
        (["SEED = [1]", "SEED = [2]"], [], "'SEED' is given twice"),
        ([], ["a: SEED = 1", "a: SEED = 2"], "'a' is given twice"),
        ([], ["SEED"], "neither NAME = VALUE nor a .gin file"),
    ],
)
def test_what_cannot_be_used_is_refused(grids, cases, said):
    with pytest.raises(ConfigurationError) as error:
        points(grids=grids, cases=cases)
    assert said in str(error.value) and "\n" not in str(error.value)
