"""For all tests."""

# First of all: TFX's artifacts import setuptools, which refuses to come after anything that imported distutils.
import setuptools  # noqa: F401
