"""Bridges to other frameworks; each needs the extra of its name and imports it only when used."""
