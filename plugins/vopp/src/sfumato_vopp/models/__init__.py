"""The benchmark problems, each a :class:`sfumato_vopp.Model`."""
