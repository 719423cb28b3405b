"""What tests share: made records, networks, references, and a browser."""
