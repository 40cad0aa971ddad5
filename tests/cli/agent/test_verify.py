"""`cryo verify`: damage is named."""

from __future__ import annotations

import random

from cryostore.cli.exit_codes import OK, WITH_ISSUES
from cryostore.core.limits import MIB
from support.archives.agent import write


def test_a_damaged_file_is_named(cryo, source, tmp_path):
    write(source, {"large": random.Random(1).randbytes(MIB)})
    cryo("backup", source)
    (pack,) = (tmp_path / "data" / "packs").rglob("*-*")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    assert cryo("verify", "latest")[0] == OK
    code, out, err = cryo("verify", "latest", "--data")
    assert code == WITH_ISSUES
    assert "issues" in out
    assert "large: " in err
