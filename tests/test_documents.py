"""The documents: every link and every path they name exists, lines are wrapped, and some must be short."""

import re
from pathlib import Path

import pytest

from tests.helpers import settings_list

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md",
    "WORKSPACE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "data/README.md",
    "engine/README.md",
    "models/README.md",
    "tests/README.md",
    "tests/benchmarks/RESULTS.md",
)
PACKAGES = ("engine", "data", "models", "tests")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"`([\w.-]+(?:/[\w.-]+)+/?|\w+/|[\w-]+\.(?:py|gin|md|sh|png|lock))`")
PLACEHOLDERS = re.compile(r"[A-Z]/|.*[A-Z]{2}|(runs|datasets|translated|train|best)/|[\d.]+/|\w+/\w+2\w+$")
"""A user's own files, names in capitals, fractions such as 80/10/10, and TFDS's names."""
OF_A_USER = {"my_gan.py", "my_gan.gin", "config.gin"}
FILES = {path.name for folder in (*PACKAGES, "gin") for path in (ROOT / folder).rglob("*.*")}


def read(document):
    return (ROOT / document).read_text(encoding="utf-8")


def anchors(text):
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", re.sub(CODE, "", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def is_there(name, folder):
    """Whether a name in backticks is a path from the checkout or the document, or the name of some file."""
    if "/" not in name:
        return name in FILES | OF_A_USER or (ROOT / name).exists()
    return bool(PLACEHOLDERS.match(name)) or (ROOT / name).exists() or (folder / name).exists()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_its_links_lead_somewhere(document):
    folder = (ROOT / document).parent
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", re.sub(CODE, "", read(document)))
    broken = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = folder / path if path else ROOT / document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_files_that_it_names_exist(document):
    folder = (ROOT / document).parent
    missing = [name for name in PATH.findall(re.sub(CODE, "", read(document))) if not is_there(name, folder)]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_programs_and_modules_that_it_names_exist(document):
    text = read(document)
    names = re.findall(rf"(?:python -m |`|from )((?:{'|'.join(PACKAGES)})(?:\.\w+)+)", text)
    scripts = re.findall(r"python (tests/\S+)\.py", text)
    names += [script.replace("/", ".") for script in scripts]
    missing = []
    for name in names:
        parts = name.split(".")
        # The last parts may be a class, a function or a field.
        modules = [ROOT.joinpath(*parts[:count]) for count in range(len(parts), 1, -1)]
        if not any(module.with_suffix(".py").exists() or module.is_dir() for module in modules):
            missing.append(name)
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_its_lines_are_wrapped(document):
    text = read(document)
    prose = [line for line in re.sub(CODE, "", text).splitlines() if not line.startswith("|")]
    code = "\n".join(CODE.findall(text)).splitlines()
    assert not [line for line in prose if len(line) > 100]
    assert not [line for line in code if len(line) > 110]  # as in the code itself


@pytest.mark.parametrize("document, most", [("README.md", 8 * 1024), ("WORKSPACE.md", 12 * 1024)])
def test_it_is_short(document, most):
    assert (ROOT / document).stat().st_size <= most


def test_settings_list():
    settings = settings_list.settings_list(settings_list.SETTINGS.read_text(encoding="utf-8"))
    guide = settings_list.GUIDE.read_text(encoding="utf-8")
    assert settings_list.block_of(guide) == settings, "run python -m tests.helpers.settings_list"


def test_settings_list_joins_the_lines_of_a_comment_and_wraps_them_outside_code():
    text = (
        '# --- data\nSIZE = 286   # pixels, or\n             # "all"\nX = "a"      # b\n\nmodule.Class.x = 1'
        f'\n# --- more\nLONG = 1  # {"a" * 80} "0:1, 20ep:8"'
    )
    assert settings_list.settings_list(text) == (
        '**Data**\n\n- `SIZE = 286`: pixels, or `"all"`\n- `X = "a"`: b\n'
        f'\n**More**\n\n- `LONG = 1`: {"a" * 80}\n  `"0:1, 20ep:8"`\n'
    )
