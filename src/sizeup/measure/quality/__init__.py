"""How good a model's output is: loss on text, and code that is run against hidden tests."""
