"""The loop's contract, on a step of one multiplication: what is called when, and how it ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.training.ledger import Ledger
from soda_jax.training.loop import Hook, Lengths, Parts, train

BATCH = 4


@jax.jit
def update(state, batch):
    """The state counts; the loss is what the batch says; a loss that is not finite sticks."""
    finite = jnp.isfinite(batch["x"]) & ~state["failed"]
    new = {"count": state["count"] + finite, "failed": ~finite}
    return new, {"loss": batch["x"], "finite": finite}


class Bench:
    """A loop whose surroundings write down what happens to them."""

    def __init__(self, losses, *, hooks=(), stop_after=None, late_after=None, **lengths):
        default = {"batch": BATCH, "images": BATCH * 6, "log_every": BATCH * 2, "save_every": BATCH * 3}
        self.lengths = Lengths(**default | lengths)
        self.events, self.saved, self.records, self.asked = [], {}, [], 0
        self.losses, self.stop_after, self.ledger, self.advanced = losses, stop_after, Ledger(), 0
        self.late_after = late_after
        self.hooks = [Hook(every_images=every, run=run) for every, run in hooks]

    def save(self, step, state, progress):
        self.events.append(f"save {step}")
        self.saved[step] = (int(state["count"]), progress)

    def record(self, record):
        self.events.append(f"log {record['step']}")
        self.records.append(record)

    def stop(self):
        self.asked += 1
        return self.stop_after is not None and self.asked >= self.stop_after

    def step(self, state, batch):
        self.events.append(f"step {int(jax.device_get(state['count'])) + 1}")
        return update(state, batch)

    def advance(self, images):
        self.advanced += images

    def run(self, first=0, batches=None):
        stream = iter([{"x": np.float32(loss)} for loss in self.losses]) if batches is None else batches
        parts = Parts(
            step=self.step,
            put=jax.device_put,
            record=self.record,
            advance=self.advance,
            checkpoints=self,
            stop=self.stop,
            time_is_up=lambda: self.late_after is not None and self.asked >= self.late_after,
            hooks=self.hooks,
        )
        state = jax.device_put({"count": np.int32(first), "failed": np.bool_(False)})
        return train(state, first, stream, parts, self.lengths, self.ledger)


def test_numbers_are_read_one_step_late_unless_something_is_due():
    bench = Bench([1.0] * 6, save_every=0)
    bench.run()
    expected = "step 1,step 2,step 3,log 2,step 4,step 5,log 4,step 6,log 6,save 6"
    assert bench.events == expected.split(",")


def test_hooks_then_log_then_checkpoint():
    events = []
    bench = Bench(
        [1.0] * 6, log_every=BATCH * 3, hooks=[(BATCH * 3, lambda _, n: events.append(f"hook {n}"))]
    )
    bench.events = events
    bench.run()
    first, second = "step 1,step 2,step 3,hook 3,log 3,save 3", "step 4,step 5,step 6,hook 6,log 6,save 6"
    assert events == [*first.split(","), *second.split(",")]


def test_means_and_notes_of_hooks_are_in_the_record():
    hook = (BATCH * 4, lambda state, step: {"seen": int(state["count"])})
    bench = Bench([1.0, 3.0, 5.0, 9.0, 2.0, 4.0], hooks=[hook])
    bench.run()
    assert [(r["step"], r["images"], r["loss"]) for r in bench.records] == [
        (2, 8, 2.0),
        (4, 16, 7.0),
        (6, 24, 3.0),
    ]
    assert [r.get("seen") for r in bench.records] == [None, 4, 6]
    assert bench.advanced == 24 and all(r["images_per_second"] > 0 for r in bench.records)


def test_a_checkpoint_holds_the_sums_since_the_last_line():
    bench = Bench([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    _, end = bench.run()
    assert (end.kind, end.step) == ("finished", 6)
    assert (
        bench.saved[3][0] == 3
        and bench.saved[3][1]["sums"] == {"loss": 4.0}
        and bench.saved[3][1]["count"] == 1
    )
    assert bench.saved[6][1]["sums"] == {}


def test_a_stop_finishes_the_step_and_saves():
    bench = Bench([1.0] * 6, stop_after=2, save_every=0)
    state, end = bench.run()
    assert (end.kind, end.step, int(state["count"])) == ("stopped", 2, 2)
    assert bench.events == ["step 1", "step 2", "log 2", "save 2"]


def test_a_stop_at_a_checkpoint_does_not_lose_sums():
    bench = Bench([1.0] * 6, stop_after=3)
    bench.run()
    assert bench.saved[3][1]["sums"] == {"loss": 1.0}


def test_when_time_is_up_the_step_is_finished_and_saved():
    bench = Bench([1.0] * 6, late_after=2, save_every=0)
    _, end = bench.run()
    assert (end.kind, end.step) == ("time is up", 2)
    assert bench.events == ["step 1", "step 2", "log 2", "save 2"]


def test_a_stop_comes_before_the_time():
    _, end = Bench([1.0] * 6, late_after=2, stop_after=2).run()
    assert end.kind == "stopped"


def test_data_that_fail_when_time_is_up_are_no_stop():
    def stream():
        yield from ({"x": np.float32(1)} for _ in range(2))
        raise OSError("damaged")

    with pytest.raises(OSError, match="damaged"):
        Bench([], late_after=3, save_every=0).run(batches=stream())


@pytest.mark.parametrize("minutes", [-1.0, float("inf"), float("nan")])
def test_minutes_that_are_none_are_named(minutes):
    with pytest.raises(ValueError, match=r"train\.minutes must be 0 \(no limit\) or more"):
        Lengths(batch=4, images=8, log_every=0, save_every=0, minutes=minutes)


def test_data_that_fail_while_stopping_are_a_stop():
    def batches():
        yield {"x": np.float32(1)}
        raise RuntimeError("a worker died")

    bench = Bench([], stop_after=2)
    _, end = bench.run(batches=batches())
    assert (end.kind, end.step) == ("stopped", 1) and 1 in bench.saved
    with pytest.raises(RuntimeError, match="a worker died"):
        Bench([]).run(batches=batches())


@pytest.mark.parametrize("bad", [1, 2, 3, 4, 5, 6])
def test_a_loss_that_is_not_finite_ends_it_with_its_batch_and_the_state_before(bad):
    losses = [1.0] * 6
    losses[bad - 1] = np.nan
    bench = Bench(losses)
    state, end = bench.run()
    assert (end.kind, end.step, int(state["count"])) == ("diverged", bad, bad - 1)
    assert np.isnan(end.batch["x"]) and all(step < bad for step in bench.saved)


def test_it_goes_on_behind_the_first_step_and_has_nothing_to_do_at_the_end():
    bench = Bench([1.0] * 2)
    state, end = bench.run(first=4)
    assert (end.step, int(state["count"]), list(bench.saved)) == (6, 6, [6])
    assert Bench([]).run(first=7)[1].step == 7


def test_implicit_transfers_are_refused_within_the_loop_and_allowed_in_hooks():
    def hook(state, step):
        return {"sum": float(jnp.asarray([1.0, 2.0]).sum())}

    bench = Bench([1.0] * 6, hooks=[(BATCH, hook)])
    bench.run()
    assert bench.records[0]["sum"] == 3.0

    def implicit(state, batch):
        return update(state, {"x": np.ones(1, np.float32)[0]})

    bench = Bench([1.0] * 6)
    bench.step = implicit
    with pytest.raises(Exception, match="Disallowed host-to-device"):
        bench.run()


@pytest.mark.parametrize(
    "key", ["train.batch", "train.images", "train.log_every_images", "checkpoint.every_images"]
)
def test_wrong_lengths_are_named(key):
    field = {"train.batch": "batch", "train.images": "images", "train.log_every_images": "log_every"}
    wrong = {"batch": 4, "images": 8, "log_every": 0, "save_every": 0, field.get(key, "save_every"): -1}
    with pytest.raises(ValueError, match=f"{key} must be . or more, found -1"):
        Lengths(**wrong)


def test_due_when_a_multiple_is_reached_whatever_the_batch():
    lengths = Lengths(batch=6, images=40, log_every=10, save_every=0)
    assert lengths.steps == 7
    assert [step for step in range(1, 8) if lengths.due(10, step)] == [2, 4, 5, 7]
    assert not any(lengths.due(0, step) for step in range(1, 8))
