"""The modes of `experiments.edit`, a module each, and what they share."""
