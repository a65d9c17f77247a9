"""Convert checkpoints of the rivals' own repositories to checkpoints of ours (docs/interop.md)."""
