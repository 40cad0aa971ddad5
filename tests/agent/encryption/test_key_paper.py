"""Keys on paper: a golden file, typing mistakes, and other texts."""

from __future__ import annotations

import pytest

from cryostore.agent.encryption import key_paper
from cryostore.core.errors import ConfigurationError
from support.archives.sealed_samples import KEY, golden


def test_golden_paper():
    assert key_paper.print_paper(KEY).encode() == golden("agent-key-paper.txt")
    assert key_paper.read_paper(golden("agent-key-paper.txt")).seed == KEY.seed


@pytest.mark.parametrize("number", range(4))
def test_a_typing_mistake_is_found_in_its_line(number):
    lines = golden("agent-key-paper.txt").decode().splitlines()
    at = lines.index(key_paper.TITLE) + 1 + number
    letter = lines[at][5]
    lines[at] = lines[at][:5] + ("Q" if letter != "Q" else "R") + lines[at][6:]
    with pytest.raises(ConfigurationError, match=f"line 0{number + 1} has a mistake"):
        key_paper.read_paper("\n".join(lines).encode())


def test_paper_as_people_type_it():
    text = golden("agent-key-paper.txt").decode().lower().replace("  ", "\t ").replace("\t", " ")
    assert key_paper.read_paper(text.encode()).seed == KEY.seed
    with pytest.raises(ConfigurationError, match="END is missing"):
        key_paper.read_paper(text[: text.index("end ")].encode())
    with pytest.raises(ConfigurationError, match="the first line"):
        key_paper.read_paper(b"hello")
