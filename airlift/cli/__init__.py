"""The command line: arguments, environment, clock, progress bars and exit codes live here alone."""
