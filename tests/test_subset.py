"""Parts of the training examples: which, how many, and that they are read as before."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from data.errors import DataError
from data.subset import labelled_subset
from tests import prepared_data


@pytest.fixture(scope="module")
def dataset():
    return prepared_data.single(1)


@pytest.fixture(scope="module")
def scenes():
    return dataclasses.replace(prepared_data.posed(), labels={"a": 2, "b": 3})


def rows_of(part):
    return part.split("train").records.rows


def labels_of(source):
    (name,) = source.label_keys
    return [example["labels"][name] for example in source.read(range(len(source)))]


def test_the_whole_is_left_as_it_is(dataset):
    assert labelled_subset(dataset) is dataset


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9])
def test_of_each_class_alike(dataset, fraction):
    part = labelled_subset(dataset, fraction=fraction)
    whole, found = (Counter(labels_of(d.split("train"))) for d in (dataset, part))
    assert found == {name: max(round(fraction * count), 1) for name, count in whole.items()}
    assert part.split("test") is dataset.split("test") and part.manifest == dataset.manifest


def test_shots_are_examples_of_each_class(dataset):
    found = Counter(labels_of(labelled_subset(dataset, shots=2).split("train")))
    assert set(found.values()) == {2} and len(found) == len(Counter(labels_of(dataset.split("train"))))


def test_examples_are_those_of_the_rows(dataset):
    part, source = labelled_subset(dataset, fraction=0.5).split("train"), dataset.split("train")
    rows = part.records.rows
    assert list(rows) == sorted(set(rows))
    for place in (0, len(part) - 1):
        for found in (part[place], part.read([place])[0]):
            assert found["images"] == source[rows[place]]["images"] and found["index"] == place


def test_the_seed_decides_and_less_is_a_part_of_more(dataset):
    few, more, other = (
        rows_of(labelled_subset(dataset, fraction=f, seed=s)) for f, s in ((0.3, 1), (0.6, 1), (0.3, 2))
    )
    assert set(few) < set(more) and few != other
    assert few == rows_of(labelled_subset(dataset, fraction=0.3, seed=1))


def test_of_several_labels_scenes_are_drawn(scenes):
    part = labelled_subset(scenes, fraction=0.5)
    assert len(scenes.labels) > 1
    assert len(part.split("train")) == round(0.5 * len(scenes.split("train")))
    with pytest.raises(DataError, match=r"finetune\.shots=1 counts examples of the classes of one label"):
        labelled_subset(scenes, shots=1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"fraction": 0.0}, r"finetune\.fraction must be above 0"),
        ({"fraction": 1.5}, r"finetune\.fraction must be above 0"),
        ({"fraction": np.nan}, r"finetune\.fraction must be above 0"),
        ({"shots": -1}, r"finetune\.shots=-1 must be 0 or more"),
        ({"shots": 1, "fraction": 0.5}, r"goes with finetune\.fraction=1 alone"),
        ({"shots": 100}, r"has [0-9]+ training examples only"),
    ],
)
def test_what_cannot_be_had_is_told(dataset, wrong, words):
    with pytest.raises(DataError, match=words):
        labelled_subset(dataset, **wrong)
