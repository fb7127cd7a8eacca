"""The libraries, layered: a package imports only from those below it (CONTRIBUTING.md)."""
