"""Callbacks that attach a recorder to the training loops of others; each imports its library only when it is used."""
