"""A campaign of faults: runs that are killed, starved, cut off and lied to, and what is left of them afterwards."""
