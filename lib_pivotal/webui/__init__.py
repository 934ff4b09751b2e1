"""The only room that imports the web UI's `modules`."""
