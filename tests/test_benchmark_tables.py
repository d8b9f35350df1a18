"""What `make bench-check` calls a fall, and how it reads what other benchmarks print."""

import pytest

from tests.benchmarks import model_costs, recorded_ratios
from tests.benchmarks.whole_run import programs

ROW = {
    "table": "start",
    "case": "pix2pix-256 warm",
    "peer": "engine.train",
    "base": "tutorial",
    "speed": 0.86,
}
KEY = "start: pix2pix-256 warm: engine.train / tutorial"


@pytest.mark.parametrize(("recorded", "falls"), [(0.8, 0), (1.0, 0), (1.02, 1), (None, 1)])
def test_a_ratio_15_percent_below_the_recorded_one_is_a_fall(recorded, falls):
    found = recorded_ratios.falls([ROW], {} if recorded is None else {KEY: recorded})
    assert len(found) == falls
    assert all(line.startswith(KEY) for line in found)


def test_recording_keeps_other_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded_ratios, "RECORDED", tmp_path / "recorded.json")
    assert recorded_ratios.read_recorded() == {}
    recorded_ratios.record([ROW])
    recorded_ratios.record([ROW | {"case": "other", "speed": 0.5}, ROW | {"speed": 0.9}])
    assert recorded_ratios.read_recorded() == {KEY: 0.9, "start: other: engine.train / tutorial": 0.5}


@pytest.mark.parametrize("task", ["cyclegan", "cut"])
def test_steps_are_timed_without_a_prepared_data_set(task):
    trainer = model_costs.made_up_trainer(task, 64)
    data = trainer.experiment.data
    assert (data.is_paired, data.colour_space) == (False, "rgb")
    (batch,) = data.batches(position_examples=0, global_batch=4, rows=[1, 2, 3]).take(1)
    assert batch["target"].shape == (3, 64, 64, 3)
    assert trainer.loop.step_graph(data.example_spec, accumulates=False).get_operations()


def test_what_other_programs_print_is_read(monkeypatch):
    printed = {
        "tests/benchmarks/data_speed.py": (
            "| pipeline | images/s (median) | rounds | times torch |\n|---|---|---|---|\n"
            "| gantry | 826 | 827, 825 | 1.96 |\n| gantry, fast, memory | 5320 | 5320, 5319 | 12.61 |\n"
            "| torch | 422 | 464, 380 | 1.00 |\n| keras | 497 | 497, 497 | 1.18 |\n"
        ),
        "tests/benchmarks/evaluation_speed.py": (
            "evaluation 19.10 s, generator alone 15.60 s (82 %), reading alone 0.51 s\n"
            "evaluation 19.10 s, generator alone 16.20 s (85 %), reading alone 0.50 s\n"
        ),
        "tests/benchmarks/translate_speed.py": "ratio                 1.10                  1.25\n",
    }
    monkeypatch.setattr(programs, "_output", lambda program, *flags: printed[program])
    data = programs.data_speed(images="", torch_python="", rounds=1)
    assert [(row["peer"], row["base"], row["speed"]) for row in data] == [
        ("engine", "torch", 1.96),
        ("engine, fast, memory", "torch", 12.61),
    ]
    (evaluation,) = programs.evaluation_speed(facades="", rounds=1)
    assert evaluation["speed"] == pytest.approx(0.835)
    (translate,) = programs.translate_speed(photos="", rounds=1)
    assert translate["speed"] == pytest.approx(0.8)
