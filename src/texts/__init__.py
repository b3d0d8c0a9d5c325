"""Text as models read it and as judges compare it."""
