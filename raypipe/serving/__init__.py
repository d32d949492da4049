"""Request contract, protocol, replica, and deployment on Ray Serve."""
