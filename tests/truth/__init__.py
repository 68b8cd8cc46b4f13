"""Truth tests: every derived figure against data whose right answer is known by construction.

Each module of this folder other than ``line`` and ``main`` has ``lines(full)``: it generates data, computes a figure
with the product, and compares it with the right answer. ``make truth`` prints all lines of the full versions as one
table; ``test_truth.py`` runs the quick versions in ``make test``.
"""
