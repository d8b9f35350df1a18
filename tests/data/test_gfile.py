"""Patterns on a disk where links lead in circles."""

import glob

import pytest

from data import gfile

FILES = ["x.png", "a/x.png", "a/b/c/y.png", ".hidden/x.png", "a/.x.png", "q [1]/y.png"]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "pattern", ["**/*.png", "**/x.png", "a/**/x.png", "*/**/y.png", "**/b/**/*.png", "*.png", "q [[]1]/**/*"]
)
@pytest.mark.parametrize("absolute", [False, True])
def test_patterns_match_as_pythons_do(tree, pattern, absolute):
    pattern = f"{glob.escape(str(tree))}/{pattern}" if absolute else pattern
    found = gfile.glob(pattern)
    assert found and found == sorted(set(glob.glob(pattern, recursive=True)))


def test_links_in_circles_are_followed_once(tree):
    for link, target in {"a/loop": ".", "a/up": "..", "a/b/up2": "../..", "self": "self"}.items():
        (tree / link).symlink_to(target)
    found = gfile.glob("**/*.png")
    assert len(found) == 4
    assert {(tree / path).resolve() for path in found} == {
        tree / name for name in ("x.png", "a/x.png", "a/b/c/y.png", "q [1]/y.png")
    }
