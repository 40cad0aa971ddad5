"""SVG picture of a recorded terminal session: the text on the screen at its end.

It reads recordings in asciinema's format (version 2). It knows carriage return and "erase to the end of the line",
which progress lines use, and refuses other control sequences.
"""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path

COLUMN_WIDTH, LINE_HEIGHT, MARGIN, BAR_HEIGHT = 8.4, 20, 18, 34
STYLE = (
    "text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#d6deeb;white-space:pre}"
    ".prompt{fill:#7fdbca}.command{fill:#ffffff;font-weight:600}"
)
CONTROL = re.compile(r"\r(?!\n)|\x1b\[0?K|\r?\n|[^\r\n\x1b]+|.", re.DOTALL)


def screen(events: list[str]) -> list[str]:
    """Return the lines that a terminal shows after these outputs. Raises ValueError for an unknown control sequence."""
    lines = [""]
    column = 0
    for piece in CONTROL.findall("".join(events)):
        if piece in ("\n", "\r\n"):
            lines.append("")
            column = 0
        elif piece == "\r":
            column = 0
        elif piece.startswith("\x1b["):
            lines[-1] = lines[-1][:column]
        elif piece.isprintable():
            lines[-1] = lines[-1][:column].ljust(column) + piece + lines[-1][column + len(piece) :]
            column += len(piece)
        else:
            raise ValueError(f"a recording with the control characters {piece!a} cannot be drawn")
    return lines if lines[-1] else lines[:-1]


def picture(recording: str) -> str:
    """Return the SVG of a recording."""
    head, *events = (json.loads(line) for line in recording.splitlines())
    lines = screen([text for _, kind, text in events if kind == "o"])
    width = round(2 * MARGIN + COLUMN_WIDTH * head["width"])
    height = BAR_HEIGHT + MARGIN + LINE_HEIGHT * len(lines)
    rows = (_row(line, BAR_HEIGHT + LINE_HEIGHT * (index + 1)) for index, line in enumerate(lines))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
            f"<title>{escape(head['title'])}: a recorded session</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{width}" height="{height}" rx="10" fill="#10202f"/>',
            *(
                f'<circle cx="{MARGIN + 4 + 20 * index}" cy="18" r="6" fill="{colour}"/>'
                for index, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
            ),
            *rows,
            "</svg>\n",
        ]
    )


def _row(line: str, y: int) -> str:
    if line.startswith("$ "):
        words = f'<tspan class="prompt">$ </tspan><tspan class="command">{escape(line[2:])}</tspan>'
    else:
        words = escape(line)
    return f'<text x="{MARGIN}" y="{y}" xml:space="preserve">{words}</text>'


def render(path: Path) -> str:
    """Return the SVG of the recording in a file."""
    return picture(path.read_text(encoding="utf-8"))
