"""The icon world's own factory: how the bundled model was made, from nothing (`twgi train vq`, `twgi train lm`).

Nothing else uses it. The loop, the losses, batches and checkpoints are those of `twgi.training`.
"""
