"""The upgrade from 0.7 to 0.8: where a node stands in it and what comes next."""
