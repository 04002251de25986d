"""pip refuses a tree that has only setup.cfg; everything is declared there."""

import setuptools

setuptools.setup()
