"""One model behind HTTP: `raypipe serve` beside what a user would put in front of it instead."""
