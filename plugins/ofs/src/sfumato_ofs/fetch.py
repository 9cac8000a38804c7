"""Download the two public data files into a data folder, each checked against its SHA-256."""

from __future__ import annotations

from pathlib import Path

from sfumato_ofs.data import COMPAS_FILE, COMPAS_SHA256, COMPAS_URL, GERMAN_FILE, GERMAN_SHA256, GERMAN_URL
from sfumato_ofs.errors import need

SOURCES = {
    "german": (GERMAN_URL, GERMAN_SHA256, GERMAN_FILE),
    "compas": (COMPAS_URL, COMPAS_SHA256, COMPAS_FILE),
}


def fetch_file(url: str, sha256: str, target: Path) -> Path:
    """Download url to target unless a file with this SHA-256 is there already.

    Raises: MissingPackage without pooch (extra `data`); ValueError when the hash does not fit (nothing is kept).
    """
    try:
        import pooch
    except ImportError as error:
        raise need("pooch", "data", "downloading the data files") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(pooch.retrieve(url, known_hash=f"sha256:{sha256}", fname=target.name, path=target.parent))
