"""What devices say to each other in a training step: gradients, parameters and moments, and nothing of a batch.

A batch has a multiple of 11 rows on every device, and no array of a network has a side that 11 divides.
"""

import functools
import math
from collections import Counter

import jax
import pytest

from experiments import build, methods
from experiments.configs import default
from soda_jax.methods.base import moving
from soda_jax.parallel import sharding
from soda_jax.parallel.collectives import collectives
from soda_jax.parallel.mesh import make_mesh
from soda_jax.training.optimizer import Ema
from soda_jax.training.state import create
from soda_jax.training.step import jit_step
from tests.methods import METHODS, OTHERS
from tests.sharded import compiled_text, shardings

ROWS = 11 * 8


def sizes(tree):
    """How many arrays of how many numbers."""
    return Counter(math.prod(x.shape) for x in jax.tree.leaves(tree))


def said(found, kind, groups=None):
    """How many arrays of how many numbers go through operations of this kind, over so many devices."""
    chosen = [c for c in found if c.kind == kind and groups in (None, c.groups)]
    return Counter(math.prod(shape) for c in chosen for _, shape in c.shapes)


def divided(counts, parts):
    """The same numbers of arrays, each a part of what it was."""
    return Counter({size // parts: count for size, count in counts.items()})


def check(text, abstract, placed):
    """Every collective of a step is one that is expected, and each of those is there."""
    found, mesh = collectives(text), jax.tree.leaves(placed)[0].mesh
    fsdp, everyone = mesh.shape["fsdp"], mesh.size
    assert {c.kind for c in found} == ({"all-reduce", "all-gather"} if fsdp > 1 else {"all-reduce"})
    sides = {n for c in found for _, shape in c.shapes for n in shape}
    assert not [n for n in sides if n and n % 11 == 0], "rows of a batch travel"

    pairs = zip(jax.tree.leaves(abstract.params), jax.tree.leaves(placed.params), strict=True)
    cut = sizes([x for x, place in pairs if "fsdp" in place.spec])
    whole = sizes(abstract.params) - cut
    assert said(found, "all-gather") == cut, "each array that is cut is gathered once"
    assert not any(c.in_loop for c in found if c.kind == "all-gather")

    reduced = said(found, "all-reduce", everyone)
    assert not whole - reduced, "a gradient is not summed over the devices"
    at_once = cut & (reduced - whole)  # the others: first along fsdp, then their parts along data
    in_turn, scalars = cut - at_once, Counter({1: 10**6})
    if 1 < fsdp < everyone:
        assert said(found, "all-reduce", fsdp) - scalars == in_turn
        assert said(found, "all-reduce", everyone // fsdp) - scalars == divided(in_turn, fsdp)
    else:
        assert not in_turn, "a gradient is not summed over the devices"
    moments = sizes(moving(abstract.batch_stats))
    check_rest(reduced - whole - at_once - scalars - Counter([2]), moments)  # 2: the key of dropout


def check_rest(rest, moments):
    """BatchNorm: mean and square on the way forward, at most as much on the way back."""
    forward_and_back = Counter({size: 2 * count for size, count in moments.items()})
    assert not moments - rest and not rest - forward_and_back, (rest, moments)


MESHES = [(8, 1, 1), (1, 8, 1), (2, 4, 1), (2, 4, 2)]  # by data, by fsdp, microbatches
# the DDAE's net is large: one mesh that has both
CASES = [(name, *mesh) for name in METHODS for mesh in MESHES if name != "ddae" or mesh == (2, 4, 2)]


@pytest.mark.parametrize(("name", "data", "fsdp", "accumulation"), CASES, ids=lambda n: str(n))
def test_a_step_sums_gradients_and_moments_gathers_parameters_and_says_no_more(
    name, data, fsdp, accumulation
):
    mesh = make_mesh(data, fsdp)
    check(
        compiled_text(METHODS[name], mesh, ROWS * accumulation, accumulation), *shardings(METHODS[name], mesh)
    )


def test_nor_does_a_dit():
    """By the hardest of these meshes."""
    method, mesh = OTHERS["soda_dit"], make_mesh(2, 4)
    check(compiled_text(method, mesh, 2 * ROWS, 2), *shardings(method, mesh))


def small_networks():
    """The real networks, small: ResNet, U-Net with attention, remat; an array of each kind is cut."""
    c = default.get_config()
    c.data.update(image_size=16, source_size=16)
    c.model.update(encoder_width=8, stem="imagenet", channels=8, multipliers=(1, 2), attention=(False, True))
    c.model.update(blocks=1, groups=4, heads=2, latent_dim=10, remat="blocks")
    c.train.batch = ROWS
    spec = build.batch_spec(c)
    return c, methods.method(c, spec), spec


def test_the_real_networks_move_nothing_of_a_batch_either():
    config, method, spec = small_networks()
    optimizer, mesh = build.optimizer(config), make_mesh(2, 4)
    abstract = jax.eval_shape(functools.partial(create, method, optimizer, jax.random.key(0), spec))
    placed = sharding.state_shardings(
        abstract, mesh, smallest=2000
    )  # vectors stay whole, as in large networks
    step = jit_step(method, optimizer, Ema(decay=0.99), 1, 0, placed)
    lowered = step.lower(sharding.with_shardings(abstract, placed), sharding.abstract_batch(spec, mesh))
    check(lowered.compile().as_text(), abstract, placed)
