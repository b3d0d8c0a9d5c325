"""What the paper tries beyond its main tables: a second round, and languages never seen."""
