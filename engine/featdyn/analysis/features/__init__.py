"""What features do over training: how far they move, how many directions they use, what can be read from them."""
