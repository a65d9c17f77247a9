"""Attention of a block: SASA, the rivals' attentions and controls, with one interface."""
