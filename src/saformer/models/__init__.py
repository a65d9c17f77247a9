"""Spiking vision transformers; this package uses no data, training or command-line code."""
