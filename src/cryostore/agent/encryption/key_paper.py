"""Agent key on paper: lines of text to print, lock away, and type in again.

Format: docs/reference/archive.md, "Key on paper".
"""

from __future__ import annotations

from cryostore.agent.encryption.agent_key import AgentKey
from cryostore.agent.encryption.cipher import SECRET_BYTES
from cryostore.core.paper import Paper

TITLE = "CRYOSTORE AGENT KEY 1"
PAPER = Paper(
    title=TITLE,
    name="agent key",
    comment=(
        "# Whoever has these lines and the archives can read them; without them, or the key file, nobody can.",
        "# To put them back: type all lines from CRYOSTORE AGENT KEY on into a file, then:",
        "# cryo init-key NEW-KEY-FILE --from-paper FILE",
        "# The letters are A to Z and the digits 2 to 7. Spaces and the size of letters do not matter.",
    ),
    line_bytes=10,
    end_characters=8,
)


def print_paper(key: AgentKey) -> str:
    """The key as text for people."""
    return PAPER.write(key.seed, key.public)


def read_paper(data: bytes) -> AgentKey:
    """The key in a typed-in text of `print_paper`. Raises ConfigurationError, as `Paper.read`."""
    return AgentKey(PAPER.read(data, lambda seed: AgentKey(seed).public if len(seed) == SECRET_BYTES else None))
