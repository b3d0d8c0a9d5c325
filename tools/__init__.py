"""Builders, tuning and house-keeping that no stage of the paper needs at run time."""
