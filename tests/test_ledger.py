"""Means between two lines, their continuation from a checkpoint, and the clock."""

import json
import time

import pytest

from soda_jax.training.ledger import Clock, Ledger


def test_a_record_holds_the_means_since_the_last_one():
    ledger = Ledger()
    for loss in (1.0, 2.0, 6.0):
        ledger.add({"loss": loss})
    record = ledger.close(step=3, batch=8)
    assert (record["step"], record["images"], record["loss"]) == (3, 24, 3.0)
    ledger.add({"loss": 5.0})
    assert ledger.close(step=4, batch=8)["loss"] == 5.0


def test_notes_of_hooks_go_into_the_next_record_only():
    ledger = Ledger()
    ledger.note({"monitor/use": 0.5})
    ledger.note(None)
    ledger.add({"loss": 1.0})
    assert ledger.close(step=1, batch=8)["monitor/use"] == 0.5
    ledger.add({"loss": 1.0})
    assert "monitor/use" not in ledger.close(step=2, batch=8)


def test_what_a_save_costs_goes_into_the_next_record_with_its_share_of_the_time():
    ledger = Ledger()
    time.sleep(0.15)
    with ledger.saving():
        time.sleep(0.05)
    ledger.add({"loss": 1.0})
    record = ledger.close(step=1, batch=8)
    assert record["save_seconds"] >= 0.05
    assert 0 < record["save_share"] <= record["save_seconds"] / (record["save_seconds"] + 0.15)
    ledger.add({"loss": 1.0})
    assert "save_share" not in ledger.close(step=2, batch=8)


def test_going_on_from_json_gives_the_mean_of_an_unbroken_run_bit_for_bit():
    losses = [0.1, 0.7, 1 / 3, 1e-9]
    unbroken, before = Ledger(), Ledger()
    for loss in losses:
        unbroken.add({"loss": loss})
    for loss in losses[:2]:
        before.add({"loss": loss})
    before.note({"note": 1 / 7})
    after = Ledger(json.loads(json.dumps(before.saved())))
    for loss in losses[2:]:
        after.add({"loss": loss})
    record = after.close(step=4, batch=1)
    assert record["loss"] == unbroken.close(step=4, batch=1)["loss"] and record["note"] == 1 / 7


def test_the_clock_counts_images_waits_and_no_pauses():
    clock = Clock(before=100.0)
    clock.start()
    with clock.paused():
        time.sleep(0.2)
    with clock.waiting():
        time.sleep(0.05)
    clock.tick()
    clock.tick()
    rates = clock.lap(batch=8)
    gone = 16 / rates["images_per_second"]
    assert 0.05 <= gone < 0.2
    assert rates["data_wait"] == pytest.approx(0.05 / gone, rel=0.5)
    assert 100.05 <= clock.seconds < 100.2


def test_a_lap_starts_anew():
    clock = Clock()
    clock.tick()
    clock.lap(batch=8)
    assert clock.lap(batch=8)["images_per_second"] == 0 and clock.lap(batch=8)["data_wait"] == 0
