"""The report of runs: read by an HTML parser, and by a browser where there is one."""

import csv
import html.parser
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
import scipy.stats
from absl.flags import FlagValues
from PIL import Image

import engine.report
from engine.cli import program
from engine.evaluation.intervals import mean_interval
from engine.report import report

ODD_NAME = "<b>&'\"run"
CONFIG = """from data import pairs
from engine import experiment

BATCH_SCHEDULE = {batch}
TOTAL_EXAMPLES = 40

experiment.Experiment.batch_schedule = %BATCH_SCHEDULE
experiment.Experiment.task = @pix2pix.Pix2Pix()
experiment.Experiment.total_examples = %TOTAL_EXAMPLES
pairs.PairedImages.dataset = '</script><script>alert(1)</script>'
"""


class Page(html.parser.HTMLParser):
    """What a page holds."""

    def __init__(self, path):
        super().__init__()
        with open(path, encoding="utf-8") as file:
            self.source = file.read()
        self.tags, self.links, self.texts, self._open = [], [], [], []
        self.feed(self.source)
        self.close()
        scripts = [text for tag, text in self.texts if tag == "script"]
        self.data = json.loads(scripts[0])

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("meta", "link", "img", "br", "wbr", "input"):
            self._open.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "action", "data")]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, "elements are closed in order"

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def words(self):
        return " ".join(text for tag, text in self.texts if tag not in ("script", "style"))

    def curve(self, title, run=0):
        (panel,) = [panel for panel in self.data["panels"] if panel["title"] == title]
        (line,) = [line for line in panel["lines"] if line["run"] == run]
        return line["x"], line["y"]


def training_row(examples, batch, **more):
    return {
        "step": examples // batch,
        "examples": examples,
        "epoch": examples / 20,
        "global_batch": batch,
        "replicas": 1,
        "accumulation": 1,
        "loss/generator/l1": 100 / examples,
        "learning_rate/generator": 1e-4 * batch,
        "learning_rate/discriminator": 1e-4 * batch,
        "examples_per_sec": 10.0,
        "host_memory_bytes": 2**30,
        **more,
    }


def write_rows(path, rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))


@pytest.fixture(autouse=True)
def no_plots(request, monkeypatch):
    """Plots take a second, and one test looks at them."""
    if "plots" not in request.node.name:
        monkeypatch.setattr(engine.report, "write_plots", lambda *arguments: [])


@pytest.fixture
def make_run(tmp_path):
    """Writes the files of a run whose batch grows from 2 to 4, and that was killed and resumed at 20."""

    def make(name, *, batch="'0:2, 20:4'", evaluations=True, samples=(), done=True):
        run = tmp_path / name
        run.mkdir(parents=True)
        (run / "config.gin").write_text(CONFIG.format(batch=batch))
        before = [training_row(at, 2) for at in range(2, 25, 2)]
        after = [training_row(at, 4) for at in range(24, 41, 4)]
        damaged = ['{"step": 3, "exam\n', "[]\n", '{"examples": "x"}\n']
        write_rows(run / "train.jsonl", [*before, *damaged, *after, '{"step": 9, "examples": 4'])
        if evaluations:
            rows = [
                {"examples": at, "split": split, "metric/psnr_db": 10 + at / 10, "metric/mae": 30 - at / 10}
                for split, at in (("val", 20), ("val", 40), ("test", 40), ("test", 40))
            ]
            write_rows(run / "eval.jsonl", rows)
        for at, picture in samples:
            (run / "samples").mkdir(exist_ok=True)
            Image.fromarray(picture).save(run / "samples" / f"samples_{at:08d}.png")
        if done:
            (run / "DONE").write_text('{"step": 17, "examples": 40}\n')
        return run

    return make


def noise(size):
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)


def test_page_and_plots_of_a_resumed_run_whose_batch_grows(make_run):
    run = make_run(ODD_NAME, samples=[(at, noise(24)) for at in (10, 20, 40)])
    paths = report(runs=[str(run)], output=str(run / "report"))
    assert [os.path.basename(path) for path in paths] == [
        "report.html", "quality.png", "losses.png", "details.png"
    ]  # fmt: skip
    for path in paths[1:]:
        assert min(Image.open(path).size) > 200
    page = Page(paths[0])
    # One row at each position: what was trained twice counts once, as it was trained last.
    positions = [*range(2, 23, 2), *range(24, 41, 4)]
    x, y = page.curve("Loss of generator: l1")
    assert x == positions and y == pytest.approx([100 / at for at in positions], rel=1e-5)
    # A step shows where it changes: at the last row with the old value.
    assert page.curve("Batch size") == ([2, 22, 24, 40], [2, 2, 4, 4])
    assert page.curve("Learning rate") == ([2, 22, 24, 40], [2e-4, 2e-4, 4e-4, 4e-4])
    assert page.data["changes"] == [22]
    assert page.curve("PSNR on val") == ([20, 40], [12, 14])
    assert [frame["at"] for frame in page.data["frames"][0]] == [10, 20, 40]
    words = page.words()
    assert ODD_NAME in words and "2 → 4" in words and "14.00 dB" in words and "complete" in words
    # Whatever stands in names and settings is text.
    assert "b" not in page.tags and page.tags.count("script") == 2
    assert "alert(1)" in words and "alert(1)" not in "".join(t for tag, t in page.texts if tag == "script")


def test_page_needs_nothing_else_and_stays_small(make_run):
    run = make_run("run", samples=[(at, noise(640)) for at in range(1, 13)])
    (path, *_) = report(runs=[str(run)], output=str(run / "report"))
    assert os.path.getsize(path) < 5_000_000
    page = Page(path)
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert set(re.findall(r"\w+://[^\"'\s)]*", page.source)) == {"http://www.w3.org/2000/svg"}  # only a name
    assert "default-src 'none'" in page.source and "@import" not in page.source
    frames = page.data["frames"][0]
    assert len(frames) > 1 and (frames[0]["at"], frames[-1]["at"]) == (1, 12)


def test_runs_are_compared(make_run, tmp_path):
    first, second = make_run("a/run"), make_run("b/run", batch="4")
    (path, *_) = report(runs=[str(first), f"{second}/"], output=str(tmp_path / "both"))
    page = Page(path)
    assert [run["name"] for run in page.data["runs"]] == ["a/run", "b/run"]
    assert page.curve("PSNR on val", run=1) == page.curve("PSNR on val", run=0)
    different = page.source[page.source.index("Different between the runs") :]
    different = different[: different.index("</table>")]
    assert re.findall(r"<code>(.*?)</code>", different) == [
        "experiment.Experiment.batch_schedule", "&#x27;0:2, 20:4&#x27;", "4"
    ]  # fmt: skip


def test_kid_of_different_features_is_not_compared(make_run, tmp_path):
    def page(*extractors):
        runs = []
        for extractor in extractors:
            run = make_run(f"of_{extractor}_{len(runs)}_of_{len(extractors)}")
            kid = 0.25 if extractor == "random" else 4.2e-05
            row = {"examples": 40, "split": "val", "metric/kid": kid, "extractor": extractor}
            write_rows(run / "eval.jsonl", [row | {"metric/psnr_db": 20.0 + len(runs)}])
            runs.append(str(run))
        (path, *_) = report(runs=runs, output=str(tmp_path / f"report_{'_'.join(extractors)}"))
        return Page(path)

    shown = page("random", "inception")
    told = shown.words()
    assert "0.2500" in told and "4.2e-05" in told  # not 0.0000
    assert (
        "KID and FID cannot be compared between these runs: of_random_0_of_2 by random, "
        "of_inception_1_of_2 by inception."
    ) in told
    assert shown.source.count('<span class="best">') == 1  # of PSNR
    assert "KID and FID by random." in page("random").words()


def test_many_rows_keep_their_peaks(make_run):
    run = make_run("run")
    rng = np.random.default_rng(0)
    losses = rng.random(50_000)
    losses[31_234] = 77.0
    rows = [{"examples": n + 1, "loss/generator/l1": loss} for n, loss in enumerate(losses)]
    write_rows(run / "train.jsonl", rows)
    x, y = Page(report(runs=[str(run)], output=str(run / "report"))[0]).curve("Loss of generator: l1")
    assert len(x) < 41_000 and x == sorted(set(x)) and (x[0], x[-1]) == (1, 50_000)
    assert y[x.index(31_235)] == 77.0


def test_run_in_progress_without_samples_and_metrics(make_run):
    run = make_run("run", done=False, evaluations=False, samples=[(10, noise(8))])
    (run / "samples" / "samples_00000010.png").write_bytes(b"half a pict")
    write_rows(run / "eval.jsonl", [{"examples": 40, "split": "test", "metric/psnr_db": None}, {"step": 1}])
    words = Page(report(runs=[str(run)], output=str(run / "report"))[0]).words()
    assert "not complete" in words and "No sample grid" in words
    write_rows(run / "eval.jsonl", [{"examples": 40, "split": "test"}])
    assert "Unpaired data" in Page(report(runs=[str(run)], output=str(run / "report"))[0]).words()
    for name in ("train.jsonl", "eval.jsonl", "samples/samples_00000010.png"):
        os.remove(run / name)
    words = Page(report(runs=[str(run)], output=str(run / "report"))[0]).words()
    assert "No row has been logged yet" in words and "Not evaluated yet" in words


def test_worst_and_best_images_where_an_evaluation_has_written_them(make_run):
    run = make_run("run")
    values = np.random.default_rng(3).normal(20, 3, 60)
    os.mkdir(run / "evaluations")
    with open(run / "evaluations" / "test.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mae", "psnr_db"])
        writer.writerows([f"<{n}>", 1.0, value] for n, value in enumerate(values))
        file.write("<60>,1.0\n")  # was not written whole
    Image.fromarray(noise(16)).save(run / "evaluations" / "test_worst.png")
    page = Page(report(runs=[str(run)], output=str(run / "report"))[0])
    words = page.words()
    order = np.argsort(values)
    shown = re.findall(r"<td>(worst|best)</td><td>&lt;(\d+)&gt;</td>", page.source)
    assert shown == [("worst", str(n)) for n in order[:4]] + [("best", str(n)) for n in order[:-5:-1]]
    low, high = map(float, re.search(r"95 % interval ([\d.]+) to ([\d.]+)", words).groups())
    expected = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    assert f"95 % interval {' to '.join(f'{end:.2f}' for end in mean_interval(values))} (" in words
    assert (low, high) == pytest.approx(expected, abs=0.06)  # 2,000 resamples of a mean whose error is 0.39
    assert "test worst" in words


def run_program(*arguments, capsys):
    values = FlagValues()
    engine.report.define_flags(values)
    values.set_gnu_getopt(True)
    rest = values(["report", *arguments])
    capsys.readouterr()
    code = program.exit_code(engine.report.main, rest, values, takes_arguments=True)
    return code, *capsys.readouterr()


def test_program(make_run, tmp_path, capsys):
    run = make_run("run")
    code, out, errors = run_program(str(run), capsys=capsys)
    assert (code, errors) == (0, "") and f"wrote {run}/report/report.html (" in out
    code, out, _ = run_program(str(run), "--output", str(tmp_path / "there"), str(run), capsys=capsys)
    assert code == 0 and (tmp_path / "there" / "report.html").exists()
    for wrong, said in (([], "no run given"), ([str(tmp_path)], "holds no run")):
        code, _, errors = run_program(*wrong, capsys=capsys)
        assert code == 2 and said in errors and errors.count("\n") == 1


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
@pytest.mark.parametrize("size", ["1200,900", "390,800"])
def test_browser_draws_the_page_without_an_error(make_run, tmp_path, size):
    runs = [make_run(name, samples=[(10, noise(8)), (40, noise(8))]) for name in (ODD_NAME, "other")]
    (path, *_) = report(runs=[str(run) for run in runs], output=str(tmp_path / "both"))
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser",
            f"--window-size={size}", "--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom",
            f"file://{path}",
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert not [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    lines = {panel["title"]: len(panel["lines"]) for panel in Page(path).data["panels"]}
    shown = sum(lines[title] for title in lines if title.startswith(("PSNR", "Loss", "Batch", "Learning")))
    # A browser may leave those under "More curves" until they are opened.
    assert shown == 8 and shown <= done.stdout.count('class="curve"') <= sum(lines.values())
    assert "NaN" not in done.stdout and "40 examples</output>" in done.stdout
