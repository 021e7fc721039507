"""What is trained once and shipped: the scope adapter."""
