"""A stand-in for Amphion's text front end of MaskGCT."""


def g2p_(text: str, language: str) -> tuple[list[str], list[int]]:
    """A symbol and an id below 1,023 (which is padding) for each character."""
    return list(text), [ord(c) % 1000 for c in text]
