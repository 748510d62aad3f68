"""The sweep file: read, checked and resolved."""
