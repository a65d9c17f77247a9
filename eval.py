"""Evaluate: `python eval.py ckpt_path=...`, the same as `saformer-eval`."""

from saformer.cli import evaluate

if __name__ == "__main__":
    evaluate()
