"""One table of operations, from which every face is made."""
