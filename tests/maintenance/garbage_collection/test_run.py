"""State of one collection: its epoch, a dry run, and the summary that it stores as text."""

from __future__ import annotations

import pytest

from cryostore.maintenance.garbage_collection.run import CollectionResult, CollectionRun, CollectionSummary
from support.stores.shop import Shop


def begin(shop, *, dry_run):
    return CollectionRun.begin(shop.context, CollectionResult(), quarantine_ms=1000, dry_run=dry_run)


def test_each_run_except_a_dry_run_raises_the_epoch():
    shop = Shop()
    first = begin(shop, dry_run=False).epoch
    assert begin(shop, dry_run=True).epoch == first
    assert begin(shop, dry_run=False).epoch == first + 1


def test_a_dry_run_writes_nothing():
    run = begin(Shop(), dry_run=True)
    with pytest.raises(AssertionError):
        run.write(lambda _: None)


def test_chunks_condemned_one_quarantine_ago_may_be_removed():
    shop = Shop()
    assert begin(shop, dry_run=True).before_ms == shop.store.clock() - 1000


def test_a_summary_is_parsed_from_its_text():
    summary = CollectionResult(passes=3, false_share=0.25, waiting_bytes=1234).summary
    assert summary == CollectionSummary(3, 0.25, 1234)
    assert CollectionSummary.of_place(summary.place) == summary


@pytest.mark.parametrize("text", ["", "scrub", "1", "one two 3", "1 0.5 x"])
def test_any_other_text_counts_as_no_summary(text):
    assert CollectionSummary.of_place(text) == CollectionSummary()


def test_a_text_of_an_older_version_has_no_garbage():
    assert CollectionSummary.of_place("2 0.100000") == CollectionSummary(2, 0.1, 0)
