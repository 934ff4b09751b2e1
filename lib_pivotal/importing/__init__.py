"""Other trainers' run settings become run.json, with a line for every key of theirs."""
