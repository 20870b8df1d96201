"""Ollama: llama.cpp and its own runner behind a daemon."""
