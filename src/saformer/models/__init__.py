"""Spiking vision transformers; knows nothing of data, training or the command line."""
