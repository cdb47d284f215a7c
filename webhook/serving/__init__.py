"""The HTTPS server for reviews, the operations port beside it, certificates."""
