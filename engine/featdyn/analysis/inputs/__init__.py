"""What analyses are fed with: probe sets, features at cuts, weights of checkpoints, recorded arrays."""
