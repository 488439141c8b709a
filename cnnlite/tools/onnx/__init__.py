"""ONNX: trained networks as files for other programs."""
