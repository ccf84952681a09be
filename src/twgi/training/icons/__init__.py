"""The icon world's own factory: how the bundled model was made, from nothing (`twgi train vq`, `twgi train lm`)."""
