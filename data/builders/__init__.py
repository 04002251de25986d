"""TFDS builders of this project."""
