"""Attention of a block: SASA, the rivals' and the controls, under one interface."""
