"""The guard at work: the real server and the real commands on two sample clusters."""
