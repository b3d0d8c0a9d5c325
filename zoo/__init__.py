"""Pretraining of the mini models (frozen DVC stages; `python -m intp.pretraining NAME`)."""
