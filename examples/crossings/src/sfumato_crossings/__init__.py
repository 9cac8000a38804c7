"""A Gymnasium environment with hidden velocities, and the pictures of three crossings."""
