"""The window algebra, the point-in-time join, the online state, and their plans on one node or on Ray Data."""
