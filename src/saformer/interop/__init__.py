"""Checkpoints of the rivals' own repositories, as checkpoints of ours (docs/interop.md)."""
