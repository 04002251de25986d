"""Flags are for those who know them, and the user's word counts."""

import pytest

from experiments.xla_flags import FLAGS, set_up

ALL = " ".join(FLAGS)
OTHER = f"{FLAGS[0].partition('=')[0]}=SOMETHING_ELSE"


@pytest.mark.parametrize(
    ("jaxlib", "before", "after"),
    [
        ("0.10.2", None, ALL),
        ("0.12.0.1", "--xla_a=1", f"--xla_a=1 {ALL}"),
        ("0.10.2", OTHER, " ".join([OTHER, *FLAGS[1:]])),
        ("0.13.0", None, None),
        ("0.13.0", "--xla_a=1", "--xla_a=1"),
        ("0.1.0", None, None),
    ],
)
def test_a_flag_is_added_once_and_only_where_it_is_known(jaxlib, before, after):
    environment = {} if before is None else {"XLA_FLAGS": before}
    set_up(environment, jaxlib)
    set_up(environment, jaxlib)
    assert environment.get("XLA_FLAGS") == after
