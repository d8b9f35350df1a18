"""The documents: every link and every file they name exists, and the two that everybody reads are short."""

import re
from pathlib import Path

import pytest

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
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
MODULES = {
    path.name for room in ("engine", "data", "models", "tests") for path in (ROOT / room).rglob("*.py")
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_it_names_exists(document):
    path = ROOT / document
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", re.sub(CODE, "", text))
    missing = [link for link in links if not (path.parent / link).exists()]
    named = re.findall(r"`((?:engine|data|models|tests|gin)/[\w/.]+)`", text)
    missing += [name for name in named if not (ROOT / name).exists()]
    missing += [name for name in re.findall(r"`(\w+\.py)`", text) if name not in MODULES | {"my_gan.py"}]
    modules = re.findall(r"python -m ((?:engine|data|tests)\.[\w.]+)", text)
    missing += [name for name in modules if not (ROOT / (name.replace(".", "/") + ".py")).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_prose_is_wrapped_at_100_columns(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    prose = re.sub(CODE, "", text)
    assert not [line for line in prose.splitlines() if len(line) > 100 and not line.startswith("|")]


@pytest.mark.parametrize("document, most", [("README.md", 8 * 1024), ("WORKSPACE.md", 12 * 1024)])
def test_it_is_short(document, most):
    assert (ROOT / document).stat().st_size <= most
