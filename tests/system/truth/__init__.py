"""Truth tests: every derived figure against data whose right answer is known by construction.

Each area has a module with ``lines(full)``: it generates data, computes a figure with the product, and compares it
with the right answer. ``make truth`` prints all lines of the full versions as one table; ``test_truth.py`` runs the
quick versions in ``make test``.
"""
