"""What one does with a latent: interpolate it, swap its sections."""
