"""A stand-in for Amphion's text front end of MaskGCT."""


def g2p_(text: str, language: str) -> tuple[list[str], list[int]]:
    """A symbol and an id below 1,023 (which is padding) for each letter, three for a character."""
    phones = [phone for c in text for phone in (c if c.isascii() else 3 * c)]
    return phones, [ord(phone) % 1000 for phone in phones]
