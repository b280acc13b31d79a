"""Makes from the parsers of the commands what must agree with them: the options in
docs/commands/, the man pages and the completion scripts. `python -m docs.generate`."""
