"""The command line: click only. A command parses, calls one function of `jobs` or `checking`, and prints its result.

`main` is where it starts; `commands` turns every failure into one line and an exit code; `group` holds what commands
share; `output` decides what is seen. The commands: `convert` (make), `check`, `run` (use), `prepare` (what comes
before). Nothing imports this room; nothing heavy is loaded before a command runs: `w8a8sc --help` knows neither numpy
nor numba.
"""
