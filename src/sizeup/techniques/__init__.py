"""Techniques that change a model: quantize, prune, distil, fine-tune."""
