"""Writes the list of settings in engine/README.md from the comments in gin/base.gin.

python -m tests.helpers.settings_list
"""

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ROOT / "gin" / "base.gin"
GUIDE = ROOT / "engine" / "README.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"
WIDTH = 100

_SECTION = re.compile(r"^# --- (.+)$", re.MULTILINE)
_MACRO = re.compile(r"^([A-Z][A-Z0-9_]*) = (.+?) +# (.+(?:\n +# .+)*)$", re.MULTILINE)
_CODE = re.compile(r'\{[^}]*\}|"[^"]*"|\b[A-Z]+(?:_[A-Z]+)+\b')


def settings_list(text: str) -> str:
    """Makes a Markdown list for each section of macros.

    Args:
      text: of gin/base.gin: lines `# --- section` and `NAME = default  # meaning`. A meaning continues in the
        indented comment lines below it.

    Returns:
      For each section its title and a list with an item for each macro: name, default, meaning. Lines are
      wrapped, but not inside code.
    """
    _, *parts = _SECTION.split(text)
    sections = zip(parts[::2], parts[1::2], strict=True)
    return "\n".join(_section(title, _MACRO.findall(body)) for title, body in sections)


def _section(title: str, macros: list[tuple[str, str, str]]) -> str:
    lines = [f"**{title[0].upper()}{title[1:]}**", ""]
    for name, default, comment in macros:
        meaning = _CODE.sub(_as_code, re.sub(r"\n +# ", " ", comment))
        item = f"- {_as_code(f'{name} = {default}')}: {meaning}"
        wrapped = textwrap.wrap(
            item, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        lines += [line.replace("\0", " ") for line in wrapped]
    return "\n".join(lines) + "\n"


def _as_code(found: str | re.Match) -> str:
    """In backticks, with its spaces protected from wrapping."""
    text = found if isinstance(found, str) else found[0]
    return f"`{text}`".replace(" ", "\0")


def block_of(guide: str) -> str:
    """The part of a guide between the markers.

    Raises:
      ValueError: a marker is missing.
    """
    return guide[guide.index(BEGIN) + len(BEGIN) : guide.index(END)]


def main() -> None:
    """Replaces the list in the guide."""
    guide = GUIDE.read_text(encoding="utf-8")
    before, after = guide.split(f"{BEGIN}{block_of(guide)}{END}")
    settings = settings_list(SETTINGS.read_text(encoding="utf-8"))
    GUIDE.write_text(f"{before}{BEGIN}{settings}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
