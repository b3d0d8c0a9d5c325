"""Tiny random instances of published models and judges, in the layouts they are published in."""
