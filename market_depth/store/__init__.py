"""What is kept: recordings of feeds as DBN files. Import from the modules; here nothing heavy is loaded."""
