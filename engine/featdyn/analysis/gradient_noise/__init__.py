"""What mini-batches add to the gradient, and whether that is isotropic."""
