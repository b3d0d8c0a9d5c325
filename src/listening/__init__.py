"""Listening tests: design, stimuli, widget, analysis, and a panel of simulated listeners."""
