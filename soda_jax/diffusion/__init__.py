"""The maths of diffusion: schedules, the forward process, how training draws t, samplers."""
