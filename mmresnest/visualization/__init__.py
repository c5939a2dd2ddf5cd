"""Draw images with annotations and predictions; hand them to TensorBoard, wandb and MLflow.

Imports utils and registry; neither engine nor models.
"""
