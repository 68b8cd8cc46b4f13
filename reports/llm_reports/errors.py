"""The errors for invalid inputs. Every message states what is wrong, where, and what to do."""

from __future__ import annotations


class InputError(Exception):
    """An input or an option that cannot be used. The message is for the user; the command exits with code 2."""


class PriceFileError(InputError):
    """A price file cannot be used, or has no unambiguous price for a model."""
