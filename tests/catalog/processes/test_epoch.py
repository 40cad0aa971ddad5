"""The epoch of garbage collection only grows, and unknown commits are remembered."""

from __future__ import annotations

from cryostore.catalog.processes import epoch


def test_the_epoch_grows_by_one(catalog):
    assert catalog.read(epoch.epoch) == 0
    assert [catalog.write(epoch.next_epoch) for _ in range(3)] == [1, 2, 3]
    assert catalog.read(epoch.epoch) == 3


def test_the_number_of_unknown_commits_is_kept_until_it_is_set_again(catalog):
    assert catalog.read(epoch.unknown_commits) == 0
    catalog.write(lambda t: epoch.set_unknown_commits(t, 7))
    catalog.write(epoch.next_epoch)
    assert catalog.read(epoch.unknown_commits) == 7
    catalog.write(lambda t: epoch.set_unknown_commits(t, 0))
    assert catalog.read(epoch.unknown_commits) == 0
