"""Readings of a run's records."""

import math

import pytest

from soda_jax.report import record
from soda_jax.report.record import (
    column,
    compare,
    differences,
    features_of,
    flatten,
    gains,
    interval,
    last,
    monitor_rows,
)

ROWS = [
    {"step": 1, "images": 32, "loss": 1.0, "images_per_second": 10},
    {"step": 2, "images": 64, "loss": None, "images_per_second": 12},  # null: it was not finite
    {"step": 3, "images": 96, "loss": 0.5, "note": "words", "flag": True},
]


def test_a_column_has_the_rows_that_hold_both_numbers():
    assert column(ROWS, "loss") == ([32.0, 96.0], [1.0, 0.5])
    assert column(ROWS, "images_per_second") == ([32.0, 64.0], [10.0, 12.0])
    assert column(ROWS, "note") == column(ROWS, "flag") == column(ROWS, "absent") == ([], [])


def test_the_last_value_is_the_newest_that_is_finite():
    assert last(ROWS, "loss") == 0.5
    assert last([*ROWS, {"images": 1, "loss": math.nan}], "loss") == 0.5
    assert last([], "loss") is None


@pytest.mark.parametrize("prefix", ["monitor/", "latent/", ""])
def test_readings_of_the_monitor_are_found_under_any_prefix(prefix):
    reading = {f"{prefix}{name}": i for i, name in enumerate(("use", "effective_rank", "gain/00"))}
    (found,) = monitor_rows([ROWS[0], {"step": 4, "images": 128, "loss": 1.0} | reading])
    assert (found["use"], found["effective_rank"], found["gain/00"]) == (0, 1, 2)
    assert found["images"] == 128


def test_gains_are_in_the_order_of_the_sections():
    reading = {f"gain/{i:02d}": float(i) for i in (10, 2, 0)} | {"use": 1.0}
    assert gains(reading) == (["section 0", "section 2", "section 10"], [0.0, 2.0, 10.0])


def scores(linear, low=None, high=None):
    return {"linear": linear, "knn": linear} | ({"linear_ci95": [low, high]} if low else {})


def test_only_intervals_that_do_not_touch_decide():
    label = {"z": scores(0.8, 0.7, 0.9), "pooled": scores(0.65, 0.6, 0.75), "pixels": scores(0.5, 0.4, 0.6)}
    assert compare(label, "z", "pixels") == 1 and compare(label, "pixels", "z") == -1
    assert compare(label, "z", "pooled") == compare(label, "pooled", "z") == 0


def test_without_an_interval_the_value_is_one():
    assert interval(scores(0.8)) == (0.8, 0.8)


def test_a_feature_must_be_there_for_every_label():
    labels = {"a": {"z": scores(1), "pixels": scores(1)}, "b": {"z": scores(1), "untrained_z": scores(1)}}
    assert features_of({"labels": labels}) == ["z"]


def test_the_features_come_in_a_fixed_order_with_names():
    full = {name: scores(1) for name in reversed(record.FEATURES)}
    assert features_of({"labels": {"a": full}}) == list(record.FEATURES) == list(record.FEATURE_NAMES)


def test_flat_keys_follow_the_nesting():
    assert flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}


def test_differences_list_changed_added_and_missing_keys():
    ours, theirs = {"a": {"x": 1, "same": [1, 2]}, "new": 1}, {"a": {"x": 2, "same": (1, 2)}, "old": 0}
    assert differences(ours, theirs) == [("a.x", "2", "1"), ("new", "(none)", "1"), ("old", "0", "(none)")]
