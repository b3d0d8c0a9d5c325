"""Preference alignment for text-to-speech: losses, model adapters, judges, mining and statistics."""
