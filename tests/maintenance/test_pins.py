"""Pins: open jobs, the recovery points that they keep, and the time at which each job times out."""

from __future__ import annotations

from cryostore.maintenance.pins import pins
from support.stores.shop import Shop


def test_a_store_without_open_jobs_has_no_pins():
    assert pins(Shop().context) == []


def test_open_jobs_are_pins_until_they_end():
    shop = Shop()
    settings, now_ms = shop.context.settings, shop.store.clock()
    job = shop.api.running_job()
    shop.api.start(job, "an upload")
    restore = shop.api.restore(shop.point)
    backup_pin, restore_pin = sorted(pins(shop.context), key=lambda pin: pin.kind)
    assert (backup_pin.kind, backup_pin.id, backup_pin.state) == ("backup", job, "RUNNING")
    assert (backup_pin.open_uploads, backup_pin.vault) == (1, "Default")
    assert backup_pin.lapses_ms == min(backup_pin.lapses_ms, backup_pin.active_ms + settings.idle_job_ms)
    assert (restore_pin.kind, restore_pin.id, restore_pin.open_uploads) == ("restore", restore, 0)
    assert shop.point.endswith(restore_pin.point_id)
    assert restore_pin.lapses_ms == restore_pin.active_ms + settings.idle_restore_job_ms
    assert min(backup_pin.begun_ms, restore_pin.begun_ms) >= now_ms
    shop.api.stop(job)
    shop.api.end_restore(restore)
    assert pins(shop.context) == []


def test_the_oldest_pin_comes_first():
    shop = Shop()
    first = shop.api.restore(shop.point)
    shop.store.clock.advance(1000)
    second = shop.api.restore(shop.point)
    assert [pin.id for pin in pins(shop.context)] == [first, second]
