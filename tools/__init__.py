"""What the project's developers run; notebook 09 measures with the benchmark."""
