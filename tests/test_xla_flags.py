"""Flags are for those who know them, and the user's word counts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.xla_flags import FLAGS, LEVEL, jit_seldom, less_effort, set_up

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


@pytest.mark.parametrize(
    ("jaxlib", "flags", "expected"),
    [
        ("0.10.2", None, {LEVEL: 1}),
        ("0.12.0", "--xla_a=1", {LEVEL: 1}),
        ("0.10.2", f"--{LEVEL}=2", {}),
        ("0.13.0", None, {}),
    ],
)
def test_programs_that_run_seldom_are_optimised_less_unless_the_user_says_how_much(jaxlib, flags, expected):
    assert less_effort({} if flags is None else {"XLA_FLAGS": flags}, jaxlib) == expected


def test_a_program_that_runs_seldom_has_the_bits_of_any_other(monkeypatch):
    def random(key):
        return {n: nn.initializers.lecun_normal()(key, (3, 3, n, 8)) for n in (1, 5, 16)}

    key = jax.random.key(0)
    level = {LEVEL: 3}  # what users have; the tests' own programs are not optimised at all
    often = jax.jit(random, compiler_options=level)(key)
    monkeypatch.setenv("XLA_FLAGS", "")
    seldom = jit_seldom(random)(key)
    assert all(np.array_equal(often[n], seldom[n]) for n in often)
    assert jax.tree.all(jax.tree.map(lambda x: bool(jnp.std(x) > 0), seldom))
