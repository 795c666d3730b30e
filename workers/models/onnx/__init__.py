"""ONNX files as people bring them: read safely, recognised, computed, their answers decoded."""
