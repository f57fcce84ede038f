"""One module for each command: the arguments, one library function, what is printed."""
