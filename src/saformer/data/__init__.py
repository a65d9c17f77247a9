"""Datasets: files on disk to uint8 batches, normalised and augmented on the device."""
