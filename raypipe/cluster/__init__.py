"""Ray settings that are right by default, in one place, and starting or joining a cluster with them."""
