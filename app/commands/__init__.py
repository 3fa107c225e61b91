"""The commands, one module each: `add_parser(subparsers)` and `run(args) -> exit code`.

`app.cli` imports only the module of the command that was asked for.
"""
