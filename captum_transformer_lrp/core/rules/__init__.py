"""The rules of AttnLRP and CP-LRP, one family a file."""
