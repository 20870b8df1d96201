"""The built-in catalogue of models that people run."""
