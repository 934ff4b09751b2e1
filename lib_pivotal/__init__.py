"""Pivotal tuning: train words and a network together, and keep them in one file."""

__version__ = "0.1.0"
