"""Small programs that run in a child process with an environment of their own."""
