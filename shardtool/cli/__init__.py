"""The command line: parse, call, show. No decisions are made here."""
