"""Entry points made up for a test."""

from importlib.metadata import Distribution, EntryPoint


class Dist(Distribution):
    def __init__(self, name):
        self._name = name

    def read_text(self, filename):
        return f"Metadata-Version: 2.1\nName: {self._name}\nVersion: 1.0\n" if filename == "METADATA" else None

    def locate_file(self, path):
        return path


def point(name, module, distribution):
    return EntryPoint(name, module, "sfumato")._for(Dist(distribution))
