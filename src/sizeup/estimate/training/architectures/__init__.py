"""What each family of models does in a step, as programs for the tape."""
