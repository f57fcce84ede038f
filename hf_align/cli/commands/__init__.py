"""One module per command: it reads arguments, calls one library function and prints."""
