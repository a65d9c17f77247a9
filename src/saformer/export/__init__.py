"""Export a trained network to files that do not need this package: torch.export and ONNX.

`program` writes the whole network as one PyTorch program, `onnx` writes the same for other
runtimes, and `check` compares the written files with the network.
"""
