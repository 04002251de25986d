"""State, optimiser, step, loop, checkpoints, metrics and the latent monitor."""
