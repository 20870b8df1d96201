"""Where models are read from: folders, headers, hubs, Ollama."""
