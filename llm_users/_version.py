"""The version of the project. No other file contains it."""

__version__ = "0.1.0"
