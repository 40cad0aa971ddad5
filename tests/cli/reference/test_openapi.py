"""`cryo openapi`: the complete document, and nothing else, on stdout."""

from __future__ import annotations

import json

from cryostore.cli.verbs import run
from cryostore.model import OPERATIONS

COVERS = ("cli/reference.py",)


def test_the_document_names_every_operation(capsys):
    assert run(["openapi"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["openapi"].startswith("3.1")
    named = {one["operationId"] for path in document["paths"].values() for one in path.values() if "operationId" in one}
    assert named == set(OPERATIONS)
