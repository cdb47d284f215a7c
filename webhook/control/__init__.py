"""What one replica alone does, the leader: it ends migrations that overrun their deadline."""
