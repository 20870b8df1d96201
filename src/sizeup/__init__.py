"""sizeup: what a language model will weigh, how fast it will run and how good it will be on your hardware."""

__version__ = "0.1.0"
