"""What every command says and how: options, output, progress, exit codes."""
