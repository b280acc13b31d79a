"""The examples of the pages: each command of theirs is run on the journey of `make demo`, and
what it prints stands in the page. `python -m docs.examples` writes it anew."""
