"""The mini zoo: how the small models were pretrained (frozen DVC stages; `python -m zoo NAME`)."""
