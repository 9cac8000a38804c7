"""The benchmark problems, each a :class:`sfumato_vopp.Model` that needs nothing but NumPy to be stepped."""
