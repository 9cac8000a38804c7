"""Stable-Baselines3 as a solver for sfumato."""
