"""What one does with a latent: interpolate it, move it along directions, exchange its sections."""
