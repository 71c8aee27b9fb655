"""Where people come in: parse, call, render, exit code. One module per command group."""
