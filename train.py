"""Train: `python train.py [group=option] [setting=value]`, the same as `saformer-train`."""

from saformer.cli import train

if __name__ == "__main__":
    train()
