"""What people look at: the paper's own numbers, plots and players, clean notebooks, provenance."""
