"""Figures of a network's firing rates, attention and spikes on single images.

`record` records them with hooks, and `figures` draws them.
"""
