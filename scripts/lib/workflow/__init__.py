"""What the Snakefile and the commands about whole workflows ask."""
