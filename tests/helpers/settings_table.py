"""Writes the tables of settings in engine/README.md from the comments in gin/base.gin.

python -m tests.helpers.settings_table
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ROOT / "gin" / "base.gin"
GUIDE = ROOT / "engine" / "README.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"

_SECTION = re.compile(r"^# --- (.+)$", re.MULTILINE)
_MACRO = re.compile(r"^([A-Z][A-Z0-9_]*) = (.+?) +# (.+(?:\n +# .+)*)$", re.MULTILINE)
_CODE = re.compile(r'\{[^}]*\}|"[^"]*"|\b[A-Z]+(?:_[A-Z]+)+\b')


def settings_table(text: str) -> str:
    """Makes a Markdown table for each section of macros.

    Args:
      text: of gin/base.gin: lines `# --- section` and `NAME = default  # meaning`. A meaning continues in the
        indented comment lines below it.

    Returns:
      For each section its title and a table with a row (name, default, meaning) for each macro.
    """
    _, *parts = _SECTION.split(text)
    sections = zip(parts[::2], parts[1::2], strict=True)
    return "\n".join(_section(title, _MACRO.findall(body)) for title, body in sections)


def _section(title: str, macros: list[tuple[str, str, str]]) -> str:
    lines = [f"**{title[0].upper()}{title[1:]}**", "", "| name | default | meaning |", "|---|---|---|"]
    for name, default, comment in macros:
        meaning = _CODE.sub(r"`\g<0>`", re.sub(r"\n +# ", " ", comment))
        lines.append(f"| `{name}` | `{default}` | {meaning} |")
    return "\n".join(lines) + "\n"


def block_of(guide: str) -> str:
    """The part of a guide between the markers.

    Raises:
      ValueError: a marker is missing.
    """
    return guide[guide.index(BEGIN) + len(BEGIN) : guide.index(END)]


def main() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    before, after = guide.split(f"{BEGIN}{block_of(guide)}{END}")
    table = settings_table(SETTINGS.read_text(encoding="utf-8"))
    GUIDE.write_text(f"{before}{BEGIN}{table}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
