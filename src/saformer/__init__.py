"""SAFormer: train, evaluate and compare spiking vision transformers."""

__version__ = "0.1.0.dev0"
