"""A trained network as files that need none of this package: torch.export and ONNX.

`program` writes the whole network as one program of PyTorch, `onnx` the same for other runtimes,
and `check` compares what was written with the network.
"""
