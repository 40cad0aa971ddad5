"""Recovery points found by ARN, id, prefix of an id, or `latest`."""

from __future__ import annotations

import pytest

from cryostore.agent.archive.open_archive import open_archive
from cryostore.agent.archive.recovery_points import completion_seconds, find_point, list_points, point_id, split_point
from cryostore.core.errors import ConfigurationError
from support.requests.calls import CountedCall


@pytest.mark.parametrize("shape", ["arn", "id"])
def test_an_arn_or_id_is_looked_up_without_a_list_request(local_runs, tmp_path, shape):
    (tmp_path / "source").mkdir()
    for _ in range(3):
        local_runs.backup(tmp_path / "source")
    listed = find_point(local_runs.call, "latest", resource=local_runs.resource)
    name = listed.recovery_point_arn if shape == "arn" else point_id(listed).lower()
    call = CountedCall(local_runs.call)
    assert find_point(call, name) == listed
    assert find_point(call, name, resource=local_runs.resource) == listed
    assert find_point(call, name, vault="Default") == listed
    assert call.counts["ListRecoveryPointsByBackupVault"] == 0
    with pytest.raises(ConfigurationError, match="there is no recovery point"):
        find_point(call, name[:-1] + ("0" if name[-1] != "0" else "1"))
    with pytest.raises(ConfigurationError, match="there is no recovery point"):
        find_point(call, name, resource="another")
    assert call.counts["ListRecoveryPointsByBackupVault"] == 0
    with open_archive(call, listed, "test"):
        pass


def test_a_prefix_must_match_exactly_one_recovery_point(local_runs, tmp_path):
    (tmp_path / "source").mkdir()
    for _ in range(2):
        local_runs.backup(tmp_path / "source")
    listed = list(list_points(local_runs.call, resource=local_runs.resource))
    for point in listed:
        assert find_point(local_runs.call, point_id(point)[:-1].lower(), resource=local_runs.resource) == point
    assert find_point(local_runs.call, "latest", resource=local_runs.resource) == max(listed, key=completion_seconds)
    with pytest.raises(ConfigurationError, match="there is no recovery point 'x'"):
        find_point(local_runs.call, "x", resource=local_runs.resource)
    with pytest.raises(ConfigurationError, match="has no recovery point"):
        find_point(local_runs.call, "latest", resource="another")


@pytest.mark.parametrize(
    ("text", "point", "path"),
    [
        ("latest", "latest", ""),
        ("latest:a/b:c", "latest", "a/b:c"),
        ("arn:aws:backup:r:1:recovery-point:I", "arn:aws:backup:r:1:recovery-point:I", ""),
        ("arn:aws:backup:r:1:recovery-point:I:a:b", "arn:aws:backup:r:1:recovery-point:I", "a:b"),
    ],
)
def test_point_and_path_are_split_at_the_first_colon_after_the_point(text, point, path):
    assert split_point(text) == (point, path)


def test_a_point_is_separated_from_a_path():
    arn = "arn:aws:backup:local-1:000000000000:recovery-point:ID"
    assert split_point("latest") == ("latest", "")
    assert split_point("latest:/a:b") == ("latest", "/a:b")
    assert split_point(arn) == (arn, "")
    assert split_point(f"{arn}:a:b") == (arn, "a:b")
