"""`cryo agent-key`: the keys of a resource, and their copies on paper."""

from __future__ import annotations

import json

COVERS = ("cli/agent_keys.py",)


def test_secrets_are_printed_only_on_paper(cryo, folder):
    cryo("init-key", folder / "key")
    secret = json.loads((folder / "key").read_text())["secret"]
    cryo("backup", folder / "source", "--data-dir", folder / "data", "--key", folder / "key")
    for arguments in (["list"], ["rotate"]):
        code, out, error = cryo("agent-key", *arguments, "--data-dir", folder / "data", "--key", folder / "key")
        assert code == 0
        assert secret not in out + error
    code, paper, _ = cryo("agent-key", "paper", folder / "key")
    (folder / "typed").write_text(paper)
    cryo("init-key", folder / "again", "--from-paper", folder / "typed")
    assert json.loads((folder / "again").read_text())["secret"] == secret


def test_keys_added_accepted_and_removed(cryo, folder):
    for name in ("key", "other"):
        cryo("init-key", folder / name)
    cryo("agent-key", "public", folder / "other", folder / "other.pub")
    place = ("--data-dir", folder / "data")
    mine, others = ("--key", folder / "key"), ("--key", folder / "other")
    cryo("backup", folder / "source", *place, *mine)
    assert cryo("restore", "latest", folder / "no", *place, *others)[0] == 2
    assert cryo("agent-key", "add", folder / "other.pub", "--name", "the other", *place, *mine)[0] == 0
    assert cryo("restore", "latest", folder / "yes", *place, *others)[0] == 0
    _, listed, note = cryo("agent-key", "list", *place, *others)
    assert "the other" in listed
    assert "nothing proves" in note
    assert "nothing proves" not in cryo("verify", "latest", *place, *mine)[2]
    resource = json.loads(cryo("agent-key", "list", "--json", *place, *others)[1])["resource"]
    backup = ("backup", folder / "source", "--resource", resource, *place, *others)
    assert cryo(*backup)[0] == 2
    assert cryo("agent-key", "accept", *place, *others)[0] == 0
    assert cryo(*backup)[0] == 0
    fingerprint = json.loads(cryo("agent-key", "list", "--json", *place, *mine)[1])["keys"][1]["key"]
    code, said, _ = cryo("agent-key", "remove", fingerprint, *place, *mine)
    assert code == 0
    assert "existing backups stay readable for that key" in said
    assert cryo("restore", "latest", folder / "gone", *place, *others)[0] == 2
    assert cryo("agent-key", "remove", "zz", *place, *mine)[0] == 2
