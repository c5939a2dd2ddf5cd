"""Draw images with annotations and predictions."""
