"""What runs on the far side of the channel: standard library only, loaded by path under `python -S`."""
