"""What a training step holds on every device: a dry run of torch's autograd, tensor by tensor, without torch."""
