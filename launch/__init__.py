"""Command line entry points, each a thin main: flags -> config -> one call into the library."""
