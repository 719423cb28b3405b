"""Observers that ship with the project: CSV, TensorBoard, MLflow and Weights & Biases."""
