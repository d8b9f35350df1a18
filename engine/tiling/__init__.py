"""Computing a function of a large image tile by tile: where tiles lie, how they are joined."""
