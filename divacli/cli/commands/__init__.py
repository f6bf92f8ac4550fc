"""One module a command: options in, one call, what a person sees."""
