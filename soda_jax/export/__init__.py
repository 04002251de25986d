"""Frozen encoders as folders that any stack reads; `soda_jax.export.load(BUNDLE)` gives one back."""

from soda_jax.export.bundle import BundleError, load, load_program, write
from soda_jax.export.encoders import FAMILIES, Encoder

__all__ = ["FAMILIES", "BundleError", "Encoder", "load", "load_program", "write"]
