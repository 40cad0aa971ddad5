"""Key files: golden files that later versions must read, malformed files that are refused, and keys on paper."""

from __future__ import annotations

import pytest

from cryostore.agent.encryption import key_file
from cryostore.agent.encryption.agent_key import AgentKey
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from support.archives.sealed_samples import KEY, PASSPHRASE, golden


def no_passphrase():
    raise AssertionError("no passphrase is needed")


def test_golden_key_files():
    assert key_file.encode(KEY) == golden("agent-key.json")
    assert key_file.encode_public(KEY) == golden("agent-key-public.json")
    assert key_file.decode(golden("agent-key.json"), no_passphrase).seed == KEY.seed
    assert key_file.decode(golden("agent-key-locked.json"), lambda: PASSPHRASE).seed == KEY.seed
    public = key_file.decode(golden("agent-key-public.json"), no_passphrase)
    assert not isinstance(public, AgentKey)
    assert public.fingerprint == KEY.fingerprint


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"format":"cryostore agent key 2","public":"AAAA"}',
        golden("agent-key.json").replace(b"AAECAw", b"BBECAw"),
        golden("agent-key.json")[:-30],
        golden("agent-key-locked.json").replace(b'"iterations": 1', b'"iterations": 1000000'),
        b" " * 70_000,
    ],
    ids=["empty", "no members", "a list", "no text", "later", "another secret", "cut", "costs", "long"],
)
def test_malformed_key_files_are_refused(data):
    with pytest.raises(ConfigurationError) as raised:
        key_file.decode(data, lambda: PASSPHRASE, "FILE")
    assert raised.value.message == "FILE is not a key file of the agent"
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_a_wrong_passphrase_is_refused():
    with pytest.raises(KeyUnavailableError, match="passphrase does not open"):
        key_file.decode(golden("agent-key-locked.json"), lambda: "another")


def test_golden_paper():
    assert key_file.print_paper(KEY).encode() == golden("agent-key-paper.txt")
    assert key_file.read_paper(golden("agent-key-paper.txt")).seed == KEY.seed


@pytest.mark.parametrize("number", range(4))
def test_a_typing_mistake_is_found_in_its_line(number):
    lines = golden("agent-key-paper.txt").decode().splitlines()
    at = lines.index(key_file.PAPER_TITLE) + 1 + number
    letter = lines[at][5]
    lines[at] = lines[at][:5] + ("Q" if letter != "Q" else "R") + lines[at][6:]
    with pytest.raises(ConfigurationError, match=f"line 0{number + 1} has a mistake"):
        key_file.read_paper("\n".join(lines).encode())


def test_spaces_and_case_of_typed_lines_do_not_matter():
    text = golden("agent-key-paper.txt").decode().lower().replace("  ", "\t ").replace("\t", " ")
    assert key_file.read_paper(text.encode()).seed == KEY.seed
    with pytest.raises(ConfigurationError, match="END is missing"):
        key_file.read_paper(text[: text.index("end ")].encode())
    with pytest.raises(ConfigurationError, match="the first line"):
        key_file.read_paper(b"hello")
